"""Who may do what at the hub. Pure: one table, asked for every path and every message of the console.

An account has one role. What is not in the table is refused: a new path or message must say here what it needs.
"""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    DOCTOR = "doctor"
    TECHNICIAN = "technician"
    ADMINISTRATOR = "administrator"


class Permission(StrEnum):
    SEE_PATIENTS = "see_patients"  # waiting room, inbox, cases, their files
    TAKE_CALLS = "take_calls"
    GIVE_ADVICE = "give_advice"  # also: close a case
    SEE_KIOSKS = "see_kiosks"  # state of the machines; nothing of those who use them
    INVITE_KIOSKS = "invite_kiosks"
    APPROVE_KIOSKS = "approve_kiosks"  # an expired or replaced kiosk gets its certificate
    REVOKE_KIOSKS = "revoke_kiosks"
    MANAGE_ACCOUNTS = "manage_accounts"
    READ_AUDIT = "read_audit"


#                                      doctor  technician  administrator
_TABLE: dict[Permission, tuple[bool, bool, bool]] = {
    Permission.SEE_PATIENTS:          (True,   False,      False),
    Permission.TAKE_CALLS:            (True,   False,      False),
    Permission.GIVE_ADVICE:           (True,   False,      False),
    Permission.SEE_KIOSKS:            (False,  True,       True),
    Permission.INVITE_KIOSKS:         (False,  True,       False),
    Permission.APPROVE_KIOSKS:        (False,  True,       False),
    Permission.REVOKE_KIOSKS:         (False,  True,       False),
    Permission.MANAGE_ACCOUNTS:       (False,  False,      True),
    Permission.READ_AUDIT:            (False,  False,      True),
}  # fmt: skip


def permissions(role: str) -> frozenset[Permission]:
    """Empty for a role that this release does not know: a database may be of a newer one."""
    if role not in list(Role):
        return frozenset()
    column = list(Role).index(Role(role))
    return frozenset(permission for permission, row in _TABLE.items() if row[column])


def may(role: str, permission: Permission) -> bool:
    return permission in permissions(role)
