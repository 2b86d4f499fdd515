//! Circles in a directed graph: strongly connected components (Tarjan, SIAM J. Comput. 1972), and in
//! each the shortest circles through its nodes.
//!
//! Not from a library: the usual one recurses, to a depth that other processes' bytes decide; and it finds only
//! components, in which the circles would still have to be found.

use std::collections::VecDeque;

/// The most circles that are listed.
const MOST: usize = 100;

/// The node is in no component with a circle.
const NONE: usize = usize::MAX;

/// Circles of the graph with these edges; every node that is part of a circle is part of one of them, unless there
/// are too many to list. Each is the shortest circle through one of its nodes.
pub(super) fn cycles(edges: &[Vec<usize>]) -> Vec<Vec<usize>> {
    let component = components(edges);
    let mut sizes = vec![0_usize; edges.len()];
    for root in &component {
        let size = get(&sizes, *root);
        set(&mut sizes, *root, size.saturating_add(1));
    }
    let circular =
        |node| get(&sizes, get(&component, node)) > 1 || next_of(edges, node).contains(&node);
    let mut covered = vec![false; edges.len()];
    let mut found = Vec::new();
    for start in 0..edges.len() {
        if found.len() == MOST {
            break;
        }
        if covered.get(start) == Some(&true) || !circular(start) {
            continue;
        }
        let Some(cycle) = shortest(edges, &component, start) else { continue };
        for node in &cycle {
            set(&mut covered, *node, true);
        }
        found.push(cycle);
    }
    found
}

fn set<T>(list: &mut [T], index: usize, value: T) {
    if let Some(place) = list.get_mut(index) {
        *place = value;
    }
}

fn get(list: &[usize], index: usize) -> usize {
    list.get(index).copied().unwrap_or(NONE)
}

fn next_of(edges: &[Vec<usize>], node: usize) -> &[usize] {
    edges.get(node).map_or(&[], Vec::as_slice)
}

/// Which component each node belongs to: two nodes are in the same if each can be reached from the
/// other.
fn components(edges: &[Vec<usize>]) -> Vec<usize> {
    let count = edges.len();
    let (mut index, mut low) = (vec![NONE; count], vec![NONE; count]);
    let mut component = vec![NONE; count];
    let (mut stack, mut next_index) = (Vec::new(), 0);
    for root in 0..count {
        if get(&index, root) != NONE {
            continue;
        }
        // The nodes on the path from the root, each with the number of its edges that were followed.
        let mut path = vec![(root, 0)];
        while let Some((node, followed)) = path.pop() {
            if followed == 0 {
                set(&mut index, node, next_index);
                set(&mut low, node, next_index);
                next_index += 1;
                stack.push(node);
            }
            if let Some(next) = next_of(edges, node).get(followed).copied().filter(|n| *n < count) {
                path.push((node, followed + 1));
                if get(&index, next) == NONE {
                    path.push((next, 0));
                } else if get(&component, next) == NONE {
                    let least = get(&low, node).min(get(&index, next));
                    set(&mut low, node, least);
                }
                continue;
            }
            if let Some((parent, _)) = path.last() {
                let least = get(&low, *parent).min(get(&low, node));
                set(&mut low, *parent, least);
            }
            if get(&low, node) == get(&index, node) {
                while let Some(member) = stack.pop() {
                    set(&mut component, member, node);
                    if member == node {
                        break;
                    }
                }
            }
        }
    }
    component
}

/// The shortest circle from a node back to it, within its component; breadth first.
fn shortest(edges: &[Vec<usize>], component: &[usize], start: usize) -> Option<Vec<usize>> {
    let mut from = vec![NONE; edges.len()];
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for next in next_of(edges, node).iter().copied() {
            if next == start {
                let mut cycle = vec![node];
                let mut at = node;
                while at != start {
                    at = get(&from, at);
                    cycle.push(at);
                }
                cycle.reverse();
                return Some(cycle);
            }
            if next < edges.len()
                && get(&from, next) == NONE
                && get(component, next) == get(component, start)
            {
                set(&mut from, next, node);
                queue.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_without_circles_has_none_however_often_paths_meet() {
        assert!(cycles(&[]).is_empty());
        assert!(cycles(&[vec![1], vec![2], vec![]]).is_empty());
        assert!(cycles(&[vec![1, 2], vec![3], vec![3], vec![]]).is_empty());
    }

    #[test]
    fn who_waits_for_itself_is_a_circle_of_one() {
        assert_eq!(cycles(&[vec![1], vec![1]]), [vec![1]]);
    }

    #[test]
    fn two_and_three_that_wait_for_each_other_are_circles_and_who_waits_for_them_is_not() {
        assert_eq!(cycles(&[vec![1], vec![0], vec![0]]), [vec![0, 1]]);
        assert_eq!(cycles(&[vec![2], vec![0], vec![1], vec![1]]), [vec![0, 2, 1]]);
    }

    #[test]
    fn a_writer_that_waits_for_two_readers_who_wait_for_it_is_two_circles() {
        assert_eq!(cycles(&[vec![1, 2], vec![0], vec![0]]), [vec![0, 1], vec![2, 0]]);
    }

    #[test]
    fn two_circles_with_a_way_from_one_to_the_other_stay_two() {
        let edges = [vec![1], vec![0, 2], vec![3], vec![2]];
        assert_eq!(cycles(&edges), [vec![0, 1], vec![2, 3]]);
    }

    #[test]
    fn the_shortest_circle_is_told_and_edges_to_nowhere_are_none() {
        assert_eq!(cycles(&[vec![1], vec![2, 0], vec![0, 77]]), [vec![0, 1], vec![2, 0, 1]]);
        assert!(cycles(&[vec![5]]).is_empty());
    }

    #[test]
    fn a_circle_of_a_hundred_thousand_needs_no_deep_stack() {
        let count = 100_000;
        let edges: Vec<_> = (0..count).map(|node| vec![(node + 1) % count]).collect();
        assert_eq!(cycles(&edges), [(0..count).collect::<Vec<_>>()]);
    }

    #[test]
    fn no_more_than_a_hundred_circles_are_listed() {
        let edges: Vec<_> = (0..1000_usize).map(|node| vec![node ^ 1]).collect();
        assert_eq!(cycles(&edges).len(), MOST);
    }
}
