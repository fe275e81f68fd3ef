"""What decides whether something is a backend: a list of rules, to be run on ours and on yours.

    @pytest.mark.asyncio
    @pytest.mark.parametrize("rule", backend_rules(), ids=rule_name)
    async def test_my_backend(rule):
        await rule(BackendCase("mine://somewhere"))

A rule raises `AssertionError` that says what was expected and what came. Each starts groups of its own and ends them. They
take about a minute altogether for a backend whose workers start in a tenth of a second. They look at processes, so they run
on Linux, with workers on the same machine.
"""

from __future__ import annotations

from sage_actor.testing.conformance_actors import (
    a_killed_worker_ends_its_actors,
    a_stopped_actor_holds_its_senders_back,
    actors_answer_from_their_workers,
)
from sage_actor.testing.conformance_case import BackendCase, Rule
from sage_actor.testing.conformance_dataflows import (
    a_dataflow_equals_the_model,
    a_dataflow_survives_a_killed_worker,
    a_slow_worker_of_an_old_attempt_changes_nothing,
    arrays_arrive_whole,
    nothing_grows_when_a_receiver_stops,
)
from sage_actor.testing.conformance_ends import (
    a_cancelled_close_can_be_repeated,
    a_cancelled_start_leaves_nothing,
    a_closed_endpoint_that_was_full_leaves_nothing,
    a_start_that_fails_leaves_nothing,
    a_worker_that_blocks_is_killed_on_close,
    closing_leaves_nothing,
    closing_twice_is_harmless,
    resources_that_nobody_has_are_refused,
)
from sage_actor.testing.conformance_frames import (
    a_busy_worker_is_not_taken_for_dead,
    a_flood_in_all_directions_ends,
    a_frame_of_many_parts_arrives_whole,
    a_group_without_workers_talks_to_itself,
    a_stuck_worker_holds_nobody_up,
    big_frames_arrive_whole,
    flush_lets_frames_out,
    frames_before_start_are_kept,
    frames_of_every_size_arrive_whole,
    groups_do_not_mix,
    many_small_frames_all_arrive,
    order_holds_between_workers,
    order_holds_in_both_directions,
    parts_may_be_changed_after_send,
    what_is_sent_before_start_is_kept_for_it,
)
from sage_actor.testing.conformance_losses import (
    a_group_closes_after_a_loss,
    a_killed_owner_leaves_no_orphan,
    a_killed_worker_is_told,
    a_loss_before_start_is_told_at_start,
    a_sleeper_that_wakes_reaches_nobody,
    a_worker_that_exits_is_told,
    an_entry_that_raises_is_told,
    an_entry_that_returns_is_no_loss,
    what_an_earlier_group_left_unread_reaches_nobody,
    what_was_flushed_outlives_its_worker,
)

__all__ = ["BackendCase", "Rule", "backend_rules", "rule_name"]


def rule_name(rule: Rule) -> str:
    """The name of a rule, for test ids."""
    name: str = getattr(rule, "__name__", "rule")
    return name


def backend_rules(*, hosts_in_owner: bool = False) -> list[Rule]:
    """The rules for a backend that starts workers; or those for one that has none, where everything lives in the owner."""
    alone: list[Rule] = [
        a_group_without_workers_talks_to_itself,
        what_is_sent_before_start_is_kept_for_it,
        parts_may_be_changed_after_send,
        closing_twice_is_harmless,
        closing_leaves_nothing,
        a_dataflow_equals_the_model,
        arrays_arrive_whole,
        nothing_grows_when_a_receiver_stops,
        actors_answer_from_their_workers,
        a_stopped_actor_holds_its_senders_back,
    ]
    with_workers: list[Rule] = [
        order_holds_in_both_directions,
        order_holds_between_workers,
        big_frames_arrive_whole,
        frames_of_every_size_arrive_whole,
        a_frame_of_many_parts_arrives_whole,
        many_small_frames_all_arrive,
        frames_before_start_are_kept,
        flush_lets_frames_out,
        a_flood_in_all_directions_ends,
        a_stuck_worker_holds_nobody_up,
        a_busy_worker_is_not_taken_for_dead,
        groups_do_not_mix,
        what_an_earlier_group_left_unread_reaches_nobody,
        a_killed_worker_is_told,
        a_worker_that_exits_is_told,
        an_entry_that_raises_is_told,
        what_was_flushed_outlives_its_worker,
        a_loss_before_start_is_told_at_start,
        an_entry_that_returns_is_no_loss,
        a_group_closes_after_a_loss,
        a_worker_that_blocks_is_killed_on_close,
        a_start_that_fails_leaves_nothing,
        resources_that_nobody_has_are_refused,
        a_cancelled_start_leaves_nothing,
        a_cancelled_close_can_be_repeated,
        a_closed_endpoint_that_was_full_leaves_nothing,
        a_killed_owner_leaves_no_orphan,
        a_sleeper_that_wakes_reaches_nobody,
        a_dataflow_survives_a_killed_worker,
        a_slow_worker_of_an_old_attempt_changes_nothing,
        a_killed_worker_ends_its_actors,
    ]
    return alone if hosts_in_owner else alone + with_workers
