"""What every answer tells a browser: keep no copy, guess no type, run nothing, show it in no frame."""

SECURITY_POLICY = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""Content-Security-Policy of answers that are no pages."""


def page_policy(nonce: str) -> str:
    """Content-Security-Policy of a page of ours: what it shows comes from its own node, and scripts carry the nonce.

    Args:
        nonce: new for every answer, at least 128 bits, such as `secrets.token_urlsafe(16)`.
    """
    return (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; "
        "connect-src 'self'; font-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    )


def security_headers(policy: str = SECURITY_POLICY) -> dict[str, str]:
    """The headers of an answer, of the testbed or of a page.

    Args:
        policy: its Content-Security-Policy; see `page_policy`.
    """
    return {
        "Cache-Control": "no-store",
        "Content-Security-Policy": policy,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
