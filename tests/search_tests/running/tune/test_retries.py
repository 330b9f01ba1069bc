"""How often a trial starts again after its worker was lost."""

from search.running.tune.retries import MAX_RETRIES, Retries, no_retries_by_tune


def test_a_trial_is_given_up_after_its_last_retry() -> None:
    retries = Retries()
    assert [retries.after_death(0) for _ in range(MAX_RETRIES)] == [""] * MAX_RETRIES
    assert retries.deaths(0) == MAX_RETRIES
    assert retries.after_death(0) == "its workers died again and again"
    assert retries.after_death(1) == ""


def test_a_new_epoch_begins_a_new_count_of_lost_nodes() -> None:
    retries = Retries()
    for epochs in range(5):
        assert [retries.after_node_loss(0, epochs) for _ in range(MAX_RETRIES)] == [
            ""
        ] * MAX_RETRIES
    assert retries.after_node_loss(0, 4) == "its nodes were lost again and again"


def test_tune_itself_never_retries() -> None:
    assert no_retries_by_tune().max_failures == 0
