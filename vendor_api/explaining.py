"""What the vendor's codes mean to the person who has to act on them, in English and Chinese."""

import re

from msgspec import Struct


class Explanation(Struct, frozen=True, kw_only=True):
    """One short sentence or two, the same in both languages: what happened, and what to do."""

    en: str
    zh: str


_USER_SIG_EXPIRED = Explanation(
    en="the RecordUserSig had expired: make a new one for each recording, valid for longer than the class",
    zh="RecordUserSig 已过期：请为每次录制生成新的 RecordUserSig，有效期要长于课程时长",
)
_USER_SIG_WRONG = Explanation(
    en="the RecordUserSig is not valid for this SdkAppId: make it with the key of the same application",
    zh="RecordUserSig 与该 SdkAppId 不匹配：请使用同一应用的密钥生成",
)
_USER_ID_WRONG = Explanation(
    en="the RecordUserSig was made for another user: make it for the RecordUserId of the same request",
    zh="RecordUserSig 属于其他用户：请使用同一请求中的 RecordUserId 生成",
)

#: What the instant messaging service says of a login; the recorder passes its number on.
#: Source: https://cloud.tencent.com/document/product/269/1671 (error codes of Chat).
_LOGIN_CODES = {
    6206: _USER_SIG_EXPIRED,
    70001: _USER_SIG_EXPIRED,
    70003: _USER_SIG_WRONG,
    70004: _USER_SIG_WRONG,
    70005: _USER_SIG_WRONG,
    70009: _USER_SIG_WRONG,
    70010: _USER_SIG_WRONG,
    70013: _USER_ID_WRONG,
    70014: _USER_SIG_WRONG,
    6208: Explanation(
        en="the RecordUserId logged in somewhere else meanwhile: use one of its own for each recording",
        zh="该 RecordUserId 已在其他终端登录：请为每次录制使用不同的 RecordUserId",
    ),
}

#: The recorder's own numbers. Source: the examples of
#: https://cloud.tencent.com/document/product/1137/40258 and https://www.tencentcloud.com/document/product/1176/55181.
_RECORDER_CODES = {
    40001: Explanation(
        en="the RecordUserId is not valid: it must be tic_record_user_{RoomId}_{random}, at most 60 bytes",
        zh="RecordUserId 无效：格式应为 tic_record_user_{RoomId}_{随机串}，最长 60 字节",
    ),
    40004: Explanation(
        en="the recorder could not log in: check RecordUserId and RecordUserSig",
        zh="录制用户登录失败：请检查 RecordUserId 和 RecordUserSig",
    ),
}

_RECORDER_CODE = re.compile(r"\bcode: ?([0-9]{1,9})\b")
_LOGIN_CODE = re.compile(r"\bfailed with code:? ?([0-9]{1,9})\b")


def explain_failure(message: str | None) -> Explanation | None:
    """Explain why a recording failed: `message` is the Message of an Error, of a callback or of an answer.

    The vendor's texts hold numbers, such as `code: 40004, msg: ..., im login failed with code 6206, desc serSig
    expired`; the innermost that is known is explained. None where none is.
    """
    if not message:
        return None
    for pattern, codes in ((_LOGIN_CODE, _LOGIN_CODES), (_RECORDER_CODE, _RECORDER_CODES)):
        found = pattern.search(message)
        if found and int(found[1]) in codes:
            return codes[int(found[1])]
    return None


_CREDENTIALS_WRONG = Explanation(
    en="the vendor does not accept TIW_VENDOR_SECRET_ID and TIW_VENDOR_SECRET_KEY: check both, and TIW_VENDOR_SITE, "
    "as the accounts of the two sites are separate",
    zh="TIW_VENDOR_SECRET_ID 与 TIW_VENDOR_SECRET_KEY 未通过验证：请检查两者及 TIW_VENDOR_SITE",
)
_NOT_ALLOWED = Explanation(
    en="these credentials may not do this: grant their CAM user the action (for DescribeRunningTasks on all resources)",
    zh="该密钥没有此权限：请在 CAM 中为对应子用户授权（DescribeRunningTasks 需授权全部资源）",
)
_NOT_THEIR_APP = Explanation(
    en="the SdkAppId is not one of the account of these credentials: check the SdkAppId, or use that account's",
    zh="该 SdkAppId 不属于此密钥所在账号：请检查 SdkAppId，或使用其所属账号的密钥",
)
_UNAVAILABLE = Explanation(
    en="the vendor does not serve this application at the moment: look into its console for arrears or a suspension",
    zh="该应用当前不可用：请在控制台检查是否欠费或停服",
)

#: Sources: https://cloud.tencent.com/document/product/1137/40049 and the error codes of each call there. Of two that
#: fit, the longer counts.
_PAUSE_REASONS = {
    "AuthFailure": _CREDENTIALS_WRONG,
    "AuthFailure.SecretIdNotFound": Explanation(
        en="the vendor does not know TIW_VENDOR_SECRET_ID: it was deleted or disabled, or belongs to the other site, "
        "see TIW_VENDOR_SITE",
        zh="TIW_VENDOR_SECRET_ID 不存在：密钥已删除或禁用，或属于另一站点，请检查 TIW_VENDOR_SITE",
    ),
    "AuthFailure.SignatureFailure": Explanation(
        en="TIW_VENDOR_SECRET_KEY does not belong to TIW_VENDOR_SECRET_ID: set both from the same pair",
        zh="TIW_VENDOR_SECRET_KEY 与 TIW_VENDOR_SECRET_ID 不匹配：请使用同一对密钥",
    ),
    "AuthFailure.UnauthorizedOperation": _NOT_ALLOWED,
    "AuthFailure.MFAFailure": Explanation(
        en="the vendor asks these credentials for a second factor: use those of a CAM user without one",
        zh="该密钥需要 MFA 验证：请使用无需 MFA 的子用户密钥",
    ),
    "UnauthorizedOperation": _NOT_ALLOWED,
    "UnauthorizedOperation.SdkAppId": _NOT_THEIR_APP,
    "InvalidParameter.SdkAppIdNotFound": _NOT_THEIR_APP,
    "ResourceUnavailable": _UNAVAILABLE,
    "ResourceUnavailable.NotRegistered": Explanation(
        en="the interactive whiteboard is not activated for this application: activate it in the vendor's console",
        zh="该应用未开通互动白板服务：请在控制台开通",
    ),
    "ResourceUnavailable.ServiceExpired": Explanation(
        en="the service has expired or is in arrears: renew or pay in the vendor's console, "
        "before files that wait there are deleted",
        zh="服务已过期或欠费：请在控制台续费，以免文件在此期间被删除",
    ),
    "ResourceUnavailable.InterfaceUnAuthorized": Explanation(
        en="this call is not open to this application: ask the vendor to open it",
        zh="该应用未获准使用此接口：请联系腾讯云开通",
    ),
}


def pause_reason(code: str) -> Explanation | None:
    """Explain a code that says that nothing can be asked for an application until a person acts; None for others."""
    family = code.partition(".")[0]
    return _PAUSE_REASONS.get(code) or _PAUSE_REASONS.get(family)


CLOCK_OFF = Explanation(
    en="the clock of this machine is more than 5 minutes off, so that the vendor refuses what it signs: set it by NTP",
    zh="本机时钟误差超过 5 分钟，签名被拒绝：请启用 NTP 校时",
)


def explain_pause(reason: str) -> Explanation | None:
    """Return the explanation whose English text a pause's reason begins with: as `AppPaused.reason` has it, or ours."""
    known = (*_PAUSE_REASONS.values(), CLOCK_OFF)
    return next((explanation for explanation in known if reason.startswith(explanation.en)), None)
