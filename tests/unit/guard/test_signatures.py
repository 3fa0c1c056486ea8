"""Signatures: what they prove, to this software and to openssl, and that nothing else passes for one."""

import base64
import hashlib
import subprocess

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from codecommit_mirror.guard.vault.public_key import PublicKey, parse_pem

PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=3072)


def public_half(private):
    return PublicKey(
        private.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


def sign(data, algorithm=None):
    return PRIVATE.sign(data, padding.PKCS1v15(), algorithm or hashes.SHA256())


@given(st.binary())
def test_a_signature_is_of_these_bytes_and_no_others(data):
    key, signature = public_half(PRIVATE), sign(data)
    assert key.verifies(data, signature)
    assert not key.verifies(data + b" ", signature)
    assert not key.verifies(data, signature[:-1] + bytes([signature[-1] ^ 1]))
    assert not key.verifies(data, signature[1:])
    assert not key.verifies(data, signature + b"\0")
    assert not key.verifies(data, b"")


def test_another_key_hash_or_padding_does_not_pass():
    key, data = public_half(PRIVATE), b"a manifest"
    other = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    assert not key.verifies(data, other.sign(data, padding.PKCS1v15(), hashes.SHA256()))
    assert not key.verifies(data, sign(data, hashes.SHA512()))
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    assert not key.verifies(data, PRIVATE.sign(data, pss, hashes.SHA256()))


def test_bytes_after_the_hash_do_not_pass():
    """A verifier that looked for the hash in place of comparing the whole block could be forged for small exponents."""
    key, numbers = public_half(PRIVATE), PRIVATE.private_numbers()
    digest_info = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(b"x").digest()
    block = b"\0\1\xff\xff\xff\xff\xff\xff\xff\xff\0" + digest_info
    block += bytes(384 - len(block))
    forged = pow(int.from_bytes(block), numbers.d, numbers.public_numbers.n).to_bytes(384)
    assert not key.verifies(b"x", forged)


def test_the_text_form_is_that_of_openssl(tmp_path):
    key = public_half(PRIVATE)
    (tmp_path / "key.pem").write_text(key.pem)
    (tmp_path / "it").write_bytes(b"a manifest")
    (tmp_path / "it.sig").write_bytes(sign(b"a manifest"))
    command = ["openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "it.sig", "it"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout == "Verified OK\n"
    assert parse_pem(key.pem) == key
    assert key.fingerprint == hashlib.sha256(key.der).hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----\n",
        public_half(ec.generate_private_key(ec.SECP256R1())).pem,
        public_half(PRIVATE).pem.replace("PUBLIC", "PRIVATE"),
    ],
)
def test_what_is_no_rsa_key_is_refused(text):
    with pytest.raises(ValueError, match=r"damaged|not an? |base64|padding|values"):
        parse_pem(text)


@given(st.integers(0, 421), st.binary(max_size=3))
def test_a_damaged_key_is_refused_or_verifies_nothing(position, noise):
    der = public_half(PRIVATE).der
    damaged = PublicKey(der[:position] + noise + der[position + len(noise) :])
    try:
        assert damaged.der == der or not damaged.verifies(b"x", sign(b"x"))
        parse_pem(damaged.pem)
    except ValueError:
        pass


def test_base64_lines_are_as_short_as_the_standard_wants():
    lines = public_half(PRIVATE).pem.splitlines()
    assert max(map(len, lines)) == 64
    assert base64.b64decode("".join(lines[1:-1])) == public_half(PRIVATE).der
