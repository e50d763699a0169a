from simulator import sign


def test_the_vendors_own_example_comes_out() -> None:
    # https://cloud.tencent.com/document/product/1137/40257
    signature = sign("Xz4ZgayTr7rMgWQrH", 1588040109)

    assert signature.expire_time == 1588040109
    assert signature.sign == "a2dabb362a9b811c0e26953a6276a41c"


def test_a_signature_does_not_show_its_sign() -> None:
    signature = sign("Xz4ZgayTr7rMgWQrH", 1588040109)

    assert signature.sign not in repr(signature)
