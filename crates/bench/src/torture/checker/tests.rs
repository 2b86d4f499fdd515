//! Hand-made histories: possible ones are accepted, and each impossible one is rejected for the right reason.

use super::{super::history::Stopped, *};

const A: RegionKey = RegionKey { entry: 1, generation: 1 };
const B: RegionKey = RegionKey { entry: 1, generation: 2 };

fn op(worker: usize, what: What, start: u64, end: u64, outcome: Outcome) -> Operation {
    Operation { worker, what, name: 0, start, end, outcome: Some(outcome) }
}

fn cut(worker: usize, what: What, start: u64) -> Operation {
    Operation { worker, what, name: 0, start, end: NEVER, outcome: None }
}

fn done(worker: usize, what: What, start: u64, end: u64, key: RegionKey) -> Operation {
    op(worker, what, start, end, Outcome::Done(key))
}

/// Checks a history in which worker 9 was killed at time 100.
fn judge(operations: &[Operation]) -> Vec<String> {
    judge_with(operations, &[])
}

fn judge_with(operations: &[Operation], stopped: &[Stopped]) -> Vec<String> {
    let mut killed = vec![None; 10];
    killed[9] = Some(Killed { before: 100, after: 102 });
    check(&History { operations: operations.to_vec(), killed, stopped: stopped.to_vec() })
}

#[track_caller]
fn accepted(operations: &[Operation]) {
    assert_eq!(judge(operations), Vec::<String>::new());
}

#[track_caller]
fn rejected(operations: &[Operation], why: &str) {
    let found = judge(operations);
    assert!(found.iter().any(|text| text.contains(why)), "wanted {why:?}, found {found:?}");
}

#[test]
fn a_plain_life_is_accepted() {
    accepted(&[
        op(0, What::Map, 1, 2, Outcome::NotFound),
        done(0, What::Create, 10, 12, A),
        op(1, What::Create, 13, 14, Outcome::Exists),
        done(1, What::Map, 20, 22, A),
        op(1, What::Destroy, 23, 24, Outcome::Mapped),
        op(0, What::Destroy, 25, 28, Outcome::TimedOut),
        done(1, What::Unmap(A), 30, 32, A),
        done(0, What::Destroy, 26, 33, A),
        op(1, What::Map, 34, 35, Outcome::NotFound),
        done(1, What::Create, 36, 37, B),
    ]);
}

/// The story: a worker was stopped while it held the directory mutex. A destroy and a create that timed out meanwhile
/// were reported as violations.
#[test]
fn a_timeout_is_accepted_while_a_worker_is_stopped_and_rejected_long_after() {
    let after = 200 + AFTERMATH_NS;
    let stopped = [Stopped { worker: 5, from: 100, until: 200 }];
    for what in [What::Destroy, What::Create, What::Resize, What::Map] {
        for (start, end, explained) in
            [(50, 99, false), (50, 100, true), (120, 130, true), (after, after + 5, true)]
        {
            let operations = [op(0, what, start, end, Outcome::TimedOut)];
            let found = judge_with(&operations, &stopped);
            assert_eq!(found.is_empty(), explained, "{operations:?}: {found:?}");
            rejected(&operations, "nobody was stopped");
        }
        let late = [op(0, what, after + 1, after + 9, Outcome::TimedOut)];
        assert_eq!(judge_with(&late, &stopped).len(), 1);
    }
    // A stop explains a wait, and nothing else.
    let twice = [done(0, What::Create, 110, 112, A), done(1, What::Create, 113, 114, A)];
    assert!(!judge_with(&twice, &stopped).is_empty());
}

/// A mapping of another worker is no reason for a create to time out.
#[test]
fn only_a_destroy_waits_for_the_mappings_of_others() {
    let mapped = [done(0, What::Create, 1, 2, A), done(1, What::Map, 3, 4, A)];
    let with = |what| [&mapped[..], &[op(0, what, 5, 9, Outcome::TimedOut)]].concat();
    accepted(&with(What::Destroy));
    rejected(&with(What::Resize), "nobody was stopped");
}

#[test]
fn one_key_from_two_creates_is_rejected() {
    let twice = [done(0, What::Create, 1, 2, A), done(1, What::Create, 3, 4, A)];
    rejected(&twice, "two creates made one region");
}

#[test]
fn a_region_that_nobody_created_is_rejected() {
    rejected(&[done(0, What::Map, 1, 2, A)], "nobody created");
}

#[test]
fn a_killed_creator_may_have_created_but_only_one_region_and_only_after_it_began() {
    accepted(&[cut(9, What::Create, 1), done(0, What::Map, 5, 6, A)]);
    accepted(&[cut(9, What::Create, 90), op(0, What::Map, 105, 106, Outcome::NotFound)]);
    rejected(&[done(0, What::Map, 5, 6, A), cut(9, What::Create, 7)], "nobody created");
    rejected(
        &[
            cut(9, What::Create, 1),
            done(0, What::Map, 5, 6, A),
            done(0, What::Unmap(A), 7, 8, A),
            done(0, What::Map, 9, 10, B),
        ],
        "nobody created",
    );
}

#[test]
fn a_map_before_the_creation_is_rejected() {
    let early = [done(0, What::Map, 1, 2, A), done(1, What::Create, 3, 4, A)];
    rejected(&early, "mapped before it was created");
}

#[test]
fn a_map_after_the_destruction_is_rejected_also_of_a_deferred_one() {
    for what in [What::Destroy, What::DestroyDeferred] {
        rejected(
            &[done(0, What::Create, 1, 2, A), done(0, what, 3, 4, A), done(1, What::Map, 5, 6, A)],
            "mapped after it was destroyed",
        );
    }
}

#[test]
fn a_destroy_that_returns_before_the_last_unmap_is_rejected() {
    let history = |what, destroyed| {
        [
            done(0, What::Create, 1, 2, A),
            done(1, What::Map, 3, 4, A),
            done(0, what, 5, destroyed, A),
            done(1, What::Unmap(A), 10, 12, A),
        ]
    };
    rejected(&history(What::Destroy, 9), "before the last unmap");
    accepted(&history(What::Destroy, 11));
    accepted(&history(What::DestroyDeferred, 9));
}

#[test]
fn a_killed_mapper_keeps_its_mapping_until_it_is_killed() {
    let history = |destroyed| {
        [
            done(0, What::Create, 1, 2, A),
            done(9, What::Map, 3, 4, A),
            done(0, What::Destroy, 5, destroyed, A),
        ]
    };
    rejected(&history(99), "before the last unmap");
    accepted(&history(101));
}

#[test]
fn two_regions_of_one_name_at_once_are_rejected() {
    rejected(
        &[
            done(0, What::Create, 1, 2, A),
            done(1, What::Create, 3, 4, B),
            done(0, What::Destroy, 5, 6, A),
        ],
        "two regions of one name",
    );
    rejected(
        &[
            done(0, What::Create, 1, 2, A),
            done(1, What::Map, 3, 4, A),
            done(0, What::DestroyDeferred, 5, 6, A),
            done(0, What::Create, 7, 8, B),
            done(1, What::Unmap(A), 9, 10, A),
        ],
        "two regions of one name",
    );
}

#[test]
fn a_region_destroyed_twice_is_rejected() {
    rejected(
        &[
            done(0, What::Create, 1, 2, A),
            done(0, What::Destroy, 3, 6, A),
            done(1, What::Destroy, 3, 6, A),
        ],
        "destroyed twice",
    );
}

#[test]
fn a_deferred_region_is_there_while_a_map_that_fails_still_counts() {
    // The story: a map counted itself, found that the region was being destroyed, and was stopped before it took that
    // back. So it delayed a deferred destroy, and the checker rejected an `Exists` for that region.
    let born = done(0, What::Create, 1, 2, A);
    let gone = done(0, What::DestroyDeferred, 5, 6, A);
    let exists = op(0, What::Create, 8, 9, Outcome::Exists);
    accepted(&[born, op(1, What::Map, 4, 50, Outcome::NotFound), gone, exists]);
    rejected(
        &[born, op(1, What::Map, 4, 7, Outcome::NotFound), gone, exists],
        "nothing could be there",
    );
    rejected(
        &[born, gone, op(1, What::Map, 7, 50, Outcome::NotFound), exists],
        "nothing could be there",
    );
}

#[test]
fn exists_needs_something_that_could_be_there() {
    let destroyed = [done(0, What::Create, 1, 2, A), done(0, What::Destroy, 3, 4, A)];
    let late = op(1, What::Create, 5, 6, Outcome::Exists);
    rejected(&[late], "nothing could be there");
    rejected(&[destroyed[0], destroyed[1], late], "nothing could be there");
    accepted(&[cut(9, What::Create, 1), late]);
    // The deferred region is there until its last unmap.
    accepted(&[
        destroyed[0],
        done(1, What::Map, 2, 3, A),
        done(0, What::DestroyDeferred, 3, 4, A),
        late,
        done(1, What::Unmap(A), 8, 9, A),
    ]);
}

#[test]
fn not_found_needs_an_instant_without_an_active_region() {
    let created = done(0, What::Create, 1, 2, A);
    for what in [What::Map, What::Destroy, What::Resize] {
        let lost = op(1, what, 5, 6, Outcome::NotFound);
        rejected(&[created, lost], "but it was active");
        accepted(&[created, lost, done(0, What::Destroy, 4, 9, A)]);
        accepted(&[created, lost, done(0, What::DestroyDeferred, 6, 9, A)]);
        rejected(&[created, lost, done(0, What::Destroy, 7, 9, A)], "but it was active");
    }
    // While a destroy waits, new maps are refused; after it has timed out, they are not.
    let mapped = done(2, What::Map, 2, 3, A);
    let waits = op(0, What::Destroy, 4, 8, Outcome::TimedOut);
    accepted(&[created, mapped, waits, op(1, What::Map, 5, 6, Outcome::NotFound)]);
    rejected(
        &[created, mapped, waits, op(1, What::Map, 9, 10, Outcome::NotFound)],
        "but it was active",
    );
}

#[test]
fn a_killed_destroyer_excuses_not_found_but_not_for_a_region_made_after_its_death() {
    let created = done(0, What::Create, 1, 2, A);
    let killed = cut(9, What::Destroy, 90);
    let lost = |start| op(1, What::Map, start, start + 1, Outcome::NotFound);
    accepted(&[created, killed, lost(110)]);
    accepted(&[created, killed, done(1, What::Map, 110, 111, A)]);
    rejected(&[created, killed, lost(50)], "but it was active");
    rejected(
        &[created, killed, done(0, What::Create, 120, 121, B), lost(130)],
        "but it was active",
    );
}

#[test]
fn a_resize_delays_a_destroy_and_keeps_the_name() {
    let created = done(0, What::Create, 1, 2, A);
    let destroyed = done(0, What::DestroyDeferred, 5, 6, A);
    let late = op(1, What::Create, 7, 8, Outcome::Exists);
    let resizes = |end| Operation { what: What::Resize, ..done(2, What::Unmap(A), 3, end, A) };
    accepted(&[created, destroyed, late, resizes(7)]);
    rejected(&[created, destroyed, late, resizes(6)], "nothing could be there");
    let waits = op(1, What::Destroy, 5, 8, Outcome::TimedOut);
    accepted(&[created, waits, resizes(7)]);
    rejected(&[created, waits, resizes(4)], "nobody maps it");
}

#[test]
fn only_a_caller_that_maps_the_region_gets_mapped() {
    let created = done(0, What::Create, 1, 2, A);
    let mapped = done(1, What::Map, 3, 4, A);
    rejected(
        &[created, mapped, op(0, What::Destroy, 5, 6, Outcome::Mapped)],
        "mapped by the caller, but it is not",
    );
    rejected(&[created, mapped, done(1, What::DestroyDeferred, 5, 6, A)], "was not told");
    rejected(&[created, mapped, op(1, What::Destroy, 5, 6, Outcome::TimedOut)], "was not told");
    let unmapped = done(1, What::Unmap(A), 5, 6, A);
    rejected(
        &[created, mapped, unmapped, op(1, What::Destroy, 7, 8, Outcome::Mapped)],
        "mapped by the caller, but it is not",
    );
}

#[test]
fn timed_out_needs_a_mapping_of_another_worker() {
    let created = done(0, What::Create, 1, 2, A);
    let late = op(0, What::Destroy, 10, 12, Outcome::TimedOut);
    rejected(&[created, late], "nobody maps it");
    rejected(
        &[created, done(1, What::Map, 3, 4, A), done(1, What::Unmap(A), 5, 6, A), late],
        "nobody maps it",
    );
    accepted(&[created, done(1, What::Map, 3, 4, A), late]);
    accepted(&[created, cut(9, What::Map, 3), late]);
    accepted(&[created, done(9, What::Map, 3, 4, A), late]);
}

#[test]
fn regions_of_different_names_are_independent() {
    let mut other = done(1, What::Create, 3, 4, B);
    other.name = 1;
    accepted(&[done(0, What::Create, 1, 2, A), other, done(0, What::Map, 5, 6, A)]);
}

#[test]
fn a_refused_create_may_have_held_the_name_for_a_moment() {
    accepted(&[
        op(0, What::Create, 1, 5, Outcome::Refused),
        op(1, What::Create, 2, 3, Outcome::Exists),
    ]);
}
