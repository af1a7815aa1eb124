//! A case for every row of the specification of asynchronous callbacks that was seen on Linux.
//!
//! `ROWS` says which test is a row's; fixtures/semantics-rows.txt lists the rows that must have
//! one. Programs are those of fixtures/async_ops.bpf.c, which executes sequences of operations.

#[path = "semantics/world.rs"]
mod world;

#[path = "semantics/execution.rs"]
mod execution;
#[path = "semantics/fields.rs"]
mod fields;
#[path = "semantics/hazards.rs"]
mod hazards;
#[path = "semantics/shared.rs"]
mod shared;
#[path = "semantics/task_work.rs"]
mod task_work;
#[path = "semantics/timer.rs"]
mod timer;
#[path = "semantics/wq.rs"]
mod wq;

use bpfsim::Result;
use std::collections::BTreeSet;
use world::World;

type Case = fn(&mut World) -> Result<()>;

/// Row and case. What Linux answers to the calls of many rows is also recorded, in
/// fixtures/async_basic.linux.json and fixtures/async_sequences.json.
const ROWS: &[(&str, Case)] = &[
    ("0.3", shared::user_references),
    ("0.4", shared::the_last_user_reference),
    ("0.5", shared::a_key_changes_under_a_callback),
    ("0.6", shared::callback_arguments),
    ("0.7", shared::a_program_lives_for_its_timers),
    ("0.7", shared::another_program_takes_over),
    ("1.2", timer::init_answers),
    ("1.3", timer::set_callback_answers),
    ("1.4", timer::start_moves_the_deadline),
    ("1.5", timer::relative_deadlines),
    ("1.6", timer::absolute_deadlines),
    ("1.7", timer::realtime_is_monotonic),
    ("1.8", timer::queued_where_it_runs),
    ("1.9", timer::cancel_in_its_callback),
    ("1.10", timer::cancel_drops_the_callback),
    ("1.11", timer::cancel_waits),
    ("1.12", timer::expired_and_not_run),
    ("1.13", timer::two_cancel_each_other),
    ("1.14", timer::cancel_another_from_a_callback),
    ("1.15", timer::freeing_waits),
    ("1.15", timer::freeing_in_a_callback_does_not_wait),
    ("1.16", timer::freed_before_it_ran),
    ("1.17", timer::armed_and_freed_in_its_callback),
    ("1.19", timer::bucket_lock_times_out),
    ("1.21", timer::soft_interrupt),
    ("1.24", timer::passes),
    ("1.25", timer::soft_interrupt),
    ("2.1", wq::init_answers),
    ("2.3", wq::start_answers),
    ("2.5", wq::order_and_restart),
    ("2.6", wq::last_callback_wins),
    ("2.7", wq::context),
    ("2.8", wq::freeing_never_waits),
    ("2.9", wq::stale_slot),
    ("3.1", task_work::answers),
    ("3.4", task_work::zombie),
    ("3.5", task_work::busy),
    ("3.6", task_work::on_the_way_to_user_mode),
    ("3.7", task_work::tasks_in_every_state),
    ("3.8", task_work::sweeps),
    ("3.9", task_work::exit_and_kernel_threads),
    ("3.11", task_work::freed),
    ("4.1", fields::map_types),
    ("4.2", fields::program_access_flags),
    ("4.3", fields::detection),
    ("4.4", fields::detection),
    ("4.5", fields::freeze),
    ("4.6", fields::user_space_sees_zero),
    ("4.7", fields::updates_free_or_keep),
    ("6.2", execution::what_holds_timers_off),
    ("6.3", execution::a_task_is_not_preempted),
    ("6.4", execution::between_repeats),
    ("6.5", execution::over_a_syscall_program),
    ("6.12", execution::memory_is_recycled),
    ("6.13", execution::two_updates_return),
    ("6.15", execution::what_a_stale_slot_holds_is_inherited),
    ("6.17", execution::locked_updates_are_whole),
];

#[test]
fn every_row_has_a_case() {
    let wanted = include_str!("../../../fixtures/semantics-rows.txt");
    let wanted = wanted.lines().filter(|l| !l.starts_with('#'));
    let wanted: BTreeSet<&str> = wanted.flat_map(str::split_whitespace).collect();
    let have: BTreeSet<&str> = ROWS.iter().map(|(row, _)| *row).collect();
    let missing: Vec<_> = wanted.difference(&have).collect();
    assert!(missing.is_empty(), "rows without a case: {missing:?}");
    let unknown: Vec<_> = have.difference(&wanted).collect();
    assert!(unknown.is_empty(), "cases of no row: {unknown:?}");
}

#[test]
fn every_case_holds() {
    let mut failed = Vec::new();
    for (row, case) in ROWS {
        let mut world = World::new().unwrap();
        if let Err(error) = case(&mut world) {
            failed.push(format!("({row}) {error}\n  {:?}", world.entries()));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
