//! Finds the waits that can never end: those that wait only for each other.
//!
//! Only its owner frees a mutex, but any holder frees a permit of a semaphore. So a circle alone proves nothing: a
//! thread that waits for a permit goes on if only one of the holders goes on. The waits that never end are the
//! largest set in which each wait needs others of the set to end first. This is a greatest fixed point: waits that
//! may end are removed until nothing changes.

/// Which of its blockers a wait needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// All of its blockers.
    All,
    /// Any one of its blockers.
    Any,
}

/// The wait of a thread, if it is among the waits that are examined.
pub(super) type Node = Option<(Needs, Vec<usize>)>;

/// Keeps only the waits that never end, and of their blockers only those whose waits never end.
pub(super) fn retain_stuck(nodes: &mut [Node]) {
    let stuck = stuck(nodes);
    let is_stuck = |thread: &usize| stuck.get(*thread) == Some(&true);
    for (thread, node) in nodes.iter_mut().enumerate() {
        if !is_stuck(&thread) {
            *node = None;
        }
        if let Some((_, blockers)) = node {
            blockers.retain(is_stuck);
        }
    }
}

fn stuck(nodes: &[Node]) -> Vec<bool> {
    let mut stuck = vec![true; nodes.len()];
    // How many more blockers have to go on before the wait ends.
    let mut left: Vec<usize> = nodes.iter().map(patience).collect();
    let mut waiters = vec![Vec::new(); nodes.len()];
    let mut going: Vec<usize> = Vec::new();
    for (thread, node) in nodes.iter().enumerate() {
        for blocker in node.iter().flat_map(|(_, blockers)| blockers) {
            match waiters.get_mut(*blocker) {
                Some(waiters) => waiters.push(thread),
                None => lose_one(&mut left, thread),
            }
        }
    }
    going.extend((0..nodes.len()).filter(|thread| left.get(*thread) == Some(&0)));
    while let Some(thread) = going.pop() {
        match stuck.get_mut(thread) {
            Some(stuck) if *stuck => *stuck = false,
            _ => continue,
        }
        for waiter in waiters.get(thread).into_iter().flatten() {
            lose_one(&mut left, *waiter);
            if left.get(*waiter) == Some(&0) {
                going.push(*waiter);
            }
        }
    }
    stuck
}

fn patience(node: &Node) -> usize {
    match node {
        None => 0,
        Some((Needs::All, blockers)) => blockers.len(),
        Some((Needs::Any, blockers)) => blockers.len().min(1),
    }
}

fn lose_one(left: &mut [usize], thread: usize) {
    if let Some(left) = left.get_mut(thread) {
        *left = left.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::{Needs::*, *};

    fn all(blockers: &[usize]) -> Node {
        Some((All, blockers.to_vec()))
    }

    fn any(blockers: &[usize]) -> Node {
        Some((Any, blockers.to_vec()))
    }

    #[track_caller]
    fn leaves(mut nodes: Vec<Node>, left: &[Node]) {
        retain_stuck(&mut nodes);
        assert_eq!(nodes, left);
    }

    #[test]
    fn two_that_wait_for_each_other_are_stuck_and_so_is_who_waits_for_them() {
        leaves(vec![all(&[1]), all(&[0]), all(&[1])], &[all(&[1]), all(&[0]), all(&[1])]);
        leaves(vec![all(&[0])], &[all(&[0])]);
    }

    #[test]
    fn who_waits_for_one_that_goes_on_is_not_stuck_however_far_off_that_is() {
        leaves(vec![], &[]);
        leaves(vec![all(&[1]), all(&[2]), None], &[None, None, None]);
        leaves(vec![all(&[1]), all(&[])], &[None, None]);
    }

    #[test]
    fn of_those_who_are_all_needed_one_that_is_stuck_is_enough() {
        leaves(vec![all(&[1, 2]), all(&[0]), None], &[all(&[1]), all(&[0]), None]);
    }

    #[test]
    fn of_those_of_whom_any_will_do_all_must_be_stuck() {
        leaves(vec![any(&[1, 2]), all(&[0]), None], &[None, None, None]);
        let both = [any(&[1, 2]), all(&[0]), all(&[0])];
        leaves(both.to_vec(), &both);
        // The second is stuck by another circle.
        let other = [any(&[1, 2]), all(&[0]), all(&[3]), all(&[2])];
        leaves(other.to_vec(), &other);
    }

    #[test]
    fn of_whom_nobody_is_known_that_could_end_it_nobody_is_stuck() {
        leaves(vec![any(&[]), all(&[0])], &[None, None]);
    }

    #[test]
    fn one_holder_that_waits_for_somebody_who_goes_on_frees_them_all_and_another_circle_stays() {
        let nodes = vec![
            any(&[1, 2]),
            all(&[0]),
            all(&[3]),
            all(&[4]),
            None,
            all(&[6]),
            all(&[5]),
            all(&[5, 0]),
        ];
        let circle = [all(&[6]), all(&[5]), all(&[5])];
        let free = std::iter::repeat_n(None, 5);
        leaves(nodes, &free.chain(circle).collect::<Vec<_>>());
    }

    #[test]
    fn two_that_have_a_permit_each_and_want_one_more_are_stuck() {
        let nodes = [any(&[0, 1]), any(&[0, 1])];
        leaves(nodes.to_vec(), &nodes);
        leaves(vec![any(&[0, 1]), None], &[None, None]);
    }

    #[test]
    fn blockers_that_do_not_exist_go_on() {
        leaves(vec![all(&[7]), any(&[0, 7])], &[None, None]);
        leaves(vec![all(&[7, 1]), all(&[0])], &[all(&[1]), all(&[0])]);
        leaves(vec![any(&[7, 1]), all(&[0])], &[None, None]);
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_needs_no_deep_stack() {
        let count = 100_000;
        let mut nodes: Vec<_> = (1..=count).map(|next| any(&[next])).collect();
        nodes.push(None);
        retain_stuck(&mut nodes);
        assert!(nodes.iter().all(Option::is_none));
    }
}
