"""Public holidays: known by name, computed once, and imported only when a plan names them."""

from __future__ import annotations

import subprocess
import sys
from datetime import date

from oms.domain import holiday
from oms.domain.holiday import check_holidays, is_holiday
from tests.oms.clocks import ms


def test_a_day_is_a_holiday_of_a_country_or_of_a_part_of_it() -> None:
    assert is_holiday("US", date(2026, 11, 26))
    assert not is_holiday("US", date(2026, 11, 27))
    assert is_holiday("US-CA", date(2026, 11, 27))
    assert is_holiday("DE-BY", date(2026, 1, 6))
    assert not is_holiday("DE", date(2026, 1, 6))
    assert not is_holiday(None, date(2026, 12, 25))


def test_a_day_off_for_the_next_years_holiday_counts() -> None:
    """New Year's Day of 2028 is a Saturday, and observed on the Friday before."""
    assert is_holiday("US", date(2027, 12, 31))


def test_two_years_are_computed_once_each() -> None:
    holiday._holidays.cache_clear()
    for day in range(1, 29):
        is_holiday("US", date(2026, 5, day))
        is_holiday("US", date(2027, 5, day))
    assert holiday._holidays.cache_info().misses == 2


def test_other_names_of_a_country_are_taken() -> None:
    assert [check_holidays(name) for name in ("GB", "UK", "GBR", "GB-SCT")] == ["GB", "UK", "GBR", "GB-SCT"]


def test_the_package_is_imported_only_for_a_calendar_with_holidays() -> None:
    script = (
        "import sys\n"
        "from oms.domain import calendar, due, schedule\n"
        "calendar.lane_calendar(timezone='UTC', open='Mon-Fri 08:00-17:00', batch_at='09:00', holidays=None)\n"
        "due.due_ms(0, due.read_due('P1D'), timezone='UTC', holidays=None)\n"
        "assert 'holidays' not in sys.modules\n"
        "calendar.lane_calendar(timezone='UTC', open=None, batch_at=None, holidays='US')\n"
        "assert 'holidays' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_zones_are_known_on_a_machine_that_has_none() -> None:
    saturday, monday = ms("2026-11-28T12:00Z"), ms("2026-11-30T00:00+13:45")
    script = (
        "import zoneinfo\n"
        "zoneinfo.reset_tzpath(to=())\n"
        "from oms.domain import calendar\n"
        "lane = calendar.lane_calendar(timezone='Pacific/Chatham', open='Mon', batch_at=None, holidays=None)\n"
        f"assert lane.next_opening_ms({saturday}) == {monday}\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
