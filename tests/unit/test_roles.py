from __future__ import annotations

import typing

import pytest

from hub import console
from hub.console_socket import NEEDS
from hub.roles import Permission, Role, may, permissions

PATIENTS = {Permission.SEE_PATIENTS, Permission.TAKE_CALLS, Permission.GIVE_ADVICE}


def test_patients_are_for_doctors_alone():
    assert permissions(Role.DOCTOR) == PATIENTS
    assert not permissions(Role.TECHNICIAN) & PATIENTS
    assert not permissions(Role.ADMINISTRATOR) & PATIENTS


def test_everything_is_for_somebody():
    assert {permission for role in Role for permission in permissions(role)} == set(Permission)


@pytest.mark.parametrize("role", ["", "Doctor", "owner", "doctor "])
def test_an_unknown_role_may_nothing(role: str):
    assert not any(may(role, permission) for permission in Permission)


def test_every_message_of_the_console_says_what_it_needs():
    assert set(NEEDS) == set(typing.get_args(console.FromConsole))
