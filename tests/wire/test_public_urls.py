from __future__ import annotations

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from seedance_avatar.text import redact_url
from seedance_avatar.wire.public_urls import MAX_URL, judge_host, judge_url

anything = st.text(st.characters(exclude_categories=[]))

GOOD = [
    "https://cdn.example.com/a.jpg",
    "http://cdn.example.com/a.jpg",
    "HTTPS://CDN.Example.COM/a.jpg",
    "https://cdn.example.com",
    "https://cdn.example.com?x=1",
    "https://cdn.example.com#top",
    "https://cdn.example.com./a.jpg",
    "https://cdn.example.com:8443/a.jpg",
    "https://my_bucket.s3.amazonaws.com/a%20b.jpg?X-Amz-Signature=0a%2Fb&x='\"<>{}|^`\\",
    "https://xn--bcher-kva.example/a.jpg",
    "https://bücher.example/ü/图.jpg",
    "https://例え。テスト/a.jpg",
    "https://cdn.example.com/redirect?to=http://127.0.0.1/@localhost",
    "https://cdn.example.com/user@2x.png",
    "https://8.8.8.8/a.jpg",
    "https://[2606:4700:4700::1111]/a.jpg",
    "https://[2606:4700:4700::1111]:443/a.jpg",
    "https://3com.com/a.jpg",
    "https://1.2.3.4.nip.io/a.jpg",
    "https://localhost.example.com/",
    "https://c.museum/" + "a" * (MAX_URL - 17),
]

BAD: dict[str, list[object]] = {
    "type": [None, 7, b"https://cdn.example.com/a.jpg", ["https://cdn.example.com"]],
    "empty": [""],
    "characters, more than": ["https://c.museum/" + "a" * (MAX_URL - 16), "x" * 1_000_000],
    "holds the data itself": ["data:image/png;base64,iVBOR", "DATA:,x", "data:image/png;base64," + "A" * 100_000],
    "an asset already": ["asset://pa_1", "Asset://pa_1"],
    "a local path": [
        "/home/me/a.jpg",
        "./a.jpg",
        "../a.jpg",
        "~/a.jpg",
        "C:\\pictures\\a.jpg",
        "c:/pictures/a.jpg",
        "\\\\server\\share\\a.jpg",
        "file:///home/me/a.jpg",
        "//cdn.example.com/a.jpg",
    ],
    "white space": [
        " https://cdn.example.com/a.jpg",
        "https://cdn.example.com/a.jpg\n",
        "https://cdn.example.com/a b.jpg",
        "https://cdn.example.com/a\u00a0b.jpg",
        "https://cdn.example.com/a\r\nHost: evil",
        "java\tscript:alert(1)",
    ],
    "invisible": [
        "https://cdn.example.com/a\x00.jpg",
        "https://cdn.example.com/a\x7f.jpg",
        "https://cdn.example.com/\u200ba.jpg",
        "https://cdn.example.com/\u202egpj.a",
        "https://local\u00adhost/",
        "https://cdn.example.com/\ud800.jpg",
        "\ufeffhttps://cdn.example.com/a.jpg",
    ],
    "no scheme": ["cdn.example.com/a.jpg", "a.jpg", "localhost:8080/a.jpg", "?", "://cdn.example.com", "ht!tp://x.com"],
    "its scheme is": ["ftp://cdn.example.com/a", "s3://bucket/a.jpg", "gs://bucket/a", "httpss://cdn.example.com/a"],
    "two slashes": ["https:cdn.example.com", "https:/cdn.example.com/a", "http:", "https:\\\\cdn.example.com\\a"],
    "user name": [
        "https://me@cdn.example.com/a.jpg",
        "https://me:pw@cdn.example.com/a.jpg",
        "https://cdn.example.com@127.0.0.1/",
        "https://cdn.example.com\\@127.0.0.1/",
        "https://@cdn.example.com/",
    ],
    "port": [
        "https://cdn.example.com:/a.jpg",
        "https://cdn.example.com:0/",
        "https://cdn.example.com:65536/",
        "https://cdn.example.com:http/",
        "https://cdn.example.com:-1/",
        "https://cdn.example.com:٨٠/",
        "https://cdn.example.com:80:80/",
        "https://[2606:4700::1]:99999/",
    ],
    "names no host": ["https://", "https:///a.jpg", "https://:80/", "http://?x", "http://#x"],
    "cannot be read": ["https://[::1/", "https://[::1]x/", "https://[[::1]]/"],
    "not a valid name": [
        "https://.example.com/",
        "https://a..example.com/",
        "https://example.com../",
        "https://-a.example.com/",
        "https://a-.example.com/",
        "https://a b".replace(" ", "%20") + ".com/",
        "https://%6c%6fcalhost/",
        "https://exa*mple.com/",
        "https://℀.example.com/",
        "https://cdn.example.com\\.evil.com/",
        f"https://{'a' * 64}.com/",
        f"https://{'ü' * 60}.com/",
        "https://../",
    ],
    "too long for a name": [f"https://{'a.' * 127}com/", f"https://{'ü.' * 400}com/"],
    "not public": [
        "http://localhost/",
        "http://localhost./a",
        "http://LOCALHOST:8080/a",
        "http://app.localhost/",
        "http://printer.local/",
        "http://cdn.svc.cluster.local/a.jpg",
        "http://metadata.google.internal/",
        "http://nas.lan/a.jpg",
        "http://nas.home.arpa/a.jpg",
        "http://a.invalid/",
        "http://a.test/",
        "http://abcdef.onion/",
        "http://ⓛocalhost/",
        "http://\uff4c\uff4f\uff43\uff41\uff4c\uff48\uff4f\uff53\uff54/",
        "http://nas。local/",
        "http://a.te\u017ft/",
        "http://loca\u212a.loca\u217c/",
    ],
    "local network": ["http://intranet/", "http://web:8080/a.jpg", "http://intranet./"],
    "not a public address": [
        "http://127.0.0.1/",
        "http://127.0.0.1./",
        "http://127.255.255.254/",
        "http://0.0.0.0/",
        "http://10.1.2.3/",
        "http://172.16.0.1/",
        "http://192.168.1.1:8080/a.jpg",
        "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/",
        "http://192.0.0.8/",
        "http://192.0.2.1/",
        "http://192.88.99.1/",
        "http://198.18.0.1/",
        "http://198.51.100.1/",
        "http://224.0.0.1/",
        "http://239.255.255.250/",
        "http://240.0.0.1/",
        "http://255.255.255.255/",
        "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",
        "http://①②⑦.⓪.⓪.①/",
        "http://127。0。0。1/",
        "http://[::]/",
        "http://[::1]/",
        "http://[::127.0.0.1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:8.8.8.8]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[64:ff9b:1::1]/",
        "http://[100::1]/",
        "http://[2001::1]/",
        "http://[2001:db8::1]/",
        "http://[2002:7f00:1::]/",
        "http://[2002:808:808::]/",
        "http://[3fff::1]/",
        "http://[5f00::1]/",
        "http://[fc00::1]/",
        "http://[fd12:3456::1]/",
        "http://[fe80::1]/",
        "http://[fec0::1]/",
        "http://[ff02::1]/",
    ],
    "a number": [
        "http://2130706433/",
        "http://017700000001/",
        "http://0x7f000001/",
        "http://0X7F.1/",
        "http://0x7f.0.0.0x1/",
        "http://127.1/",
        "http://127.0.1/",
        "http://%31%32%37.0.0.1/",
        "http://0177.0.0.1/",
        "http://127.0.0.01/",
        "http://1.2.3.4.5/",
        "http://256.0.0.1/",
        "http://a.b.1/",
        "http://a.0x/",
        "http://2130706433./",
        "http://\uff12\uff11\uff13\uff10\uff17\uff10\uff16\uff14\uff13\uff13/",
    ],
    "not an IPv6 address": ["http://[]/", "http://[1.2.3.4]/", "http://[g::1]/", "http://[v1.x]/"],
    "a zone": ["http://[fe80::1%25eth0]/", "http://[2606:4700::1%eth0]/"],
}


def short(value: object) -> str:
    return ascii(value)[:60]


@pytest.mark.parametrize("url", GOOD, ids=short)
def test_a_public_url_is_accepted(url: str) -> None:
    assert judge_url(url) is None


@pytest.mark.parametrize(("words", "url"), [(words, url) for words, urls in BAD.items() for url in urls], ids=short)
def test_what_the_service_cannot_fetch_is_refused_with_the_reason(words: str, url: object) -> None:
    reason = judge_url(url)
    assert reason is not None
    assert words in reason
    assert reason.isprintable()
    assert len(reason) < 160


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8080/a.jpg",
        "http://web/a.jpg",
        "http://nas.local/a.jpg",
        "http://127.0.0.1/a.jpg",
        "http://192.168.1.1/a.jpg",
        "http://[::1]/a.jpg",
        "http://[fd12::1]/a.jpg",
        *GOOD,
    ],
    ids=short,
)
def test_private_hosts_can_be_allowed(url: str) -> None:
    assert judge_url(url, allow_private=True) is None


@pytest.mark.parametrize(
    "url", ["http://127.1/", "http://me@localhost/", "http://a..b/", "/a.jpg", "data:,x", "http://"]
)
def test_allowing_private_hosts_allows_nothing_else(url: str) -> None:
    assert judge_url(url, allow_private=True) is not None


@given(anything)
@example("http://" + "[" * 500)
@example("http://\u0130.com")
def test_any_text_is_judged(text: str) -> None:
    for url in (text, f"https://{text}/a.jpg", f"https://cdn.example.com/{text}", f"https://cdn.example.com:{text}/"):
        reason = judge_url(url)
        assert reason is None or (reason.isprintable() and len(reason) < 200)


@given(anything)
def test_an_accepted_url_can_be_sent(text: str) -> None:
    url = f"https://cdn.example.com/{text}"
    if judge_url(url) is None:
        assert url.encode().decode() == url
        assert url.isprintable()
        assert " " not in url


@given(st.ip_addresses(v=4))
def test_no_ipv4_address_passes_that_python_knows_not_to_be_global(address: ipaddress.IPv4Address) -> None:
    if judge_host(str(address)) is None:
        assert address.is_global
        assert not any((address.is_multicast, address.is_reserved, address.is_private, address.is_loopback))


@given(st.ip_addresses(v=4), st.sampled_from(["::", "::ffff:", "64:ff9b::"]))
def test_no_ipv4_address_passes_inside_an_ipv6_one(inner: ipaddress.IPv4Address, prefix: str) -> None:
    assert judge_host(f"[{prefix}{inner}]") is not None


@given(st.ip_addresses(v=4), st.data())
def test_no_disguise_of_a_loopback_or_private_address_passes(
    address: ipaddress.IPv4Address, data: st.DataObject
) -> None:
    parts = [data.draw(st.sampled_from([str(part), hex(part), f"0{part:o}"])) for part in address.packed]
    for disguise in (".".join(parts), str(int(address)), hex(int(address))):
        if disguise != str(address):
            assert judge_url(f"http://{disguise}/") is not None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://cdn.example.com/a.jpg", "https://cdn.example.com/a.jpg"),
        ("https://cdn.example.com/a.jpg?sig=S3CRET", "https://cdn.example.com/a.jpg?…"),
        ("https://cdn.example.com/a.jpg#S3CRET", "https://cdn.example.com/a.jpg#…"),
        ("https://cdn.example.com/a#b?S3CRET", "https://cdn.example.com/a?…"),
        ("https://me:S3CRET@cdn.example.com/a@2x.png", "https://cdn.example.com/a@2x.png"),
        ("https://me:S3@CRET@cdn.example.com", "https://cdn.example.com"),
        ("https:/me:S3CRET@cdn.example.com/a", "…@cdn.example.com/a"),
        ("me:S3CRET@cdn.example.com", "…@cdn.example.com"),
        ("data:image/png;base64,S3CRET", "data:image/png;base64,…"),
        ("/home/me/a.jpg", "/home/me/a.jpg"),
        ("https://cdn.example.com/\x1b[2J\n", r"https://cdn.example.com/\x1b[2J"),
        ("", ""),
        (None, "<NoneType>"),
        (b"https://me:S3CRET@x", "<bytes>"),
    ],
)
def test_shown_url(url: object, shown: str) -> None:
    assert redact_url(url) == shown


@given(anything, st.sampled_from(["?", "#"]), anything)
def test_shown_url_takes_anything_and_hides_what_signs(head: str, mark: str, query: str) -> None:
    shown = redact_url(f"https://cdn.example.com/{head}{mark}{query}S3CRET")
    assert "S3CRET" not in shown
    assert shown.isprintable()
    assert len(shown) <= 160
    assert redact_url(f"{head}{mark}{query}").isprintable()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("https://a.example/a.jpg,https://b.example/b.mp4", "more than one URL"),
        ("https://a.example/a.jpg|https://b.example/b.mp4", "more than one URL"),
        ("https://a.example/a.jpg;http://b.example/b.mp4", "more than one URL"),
        ("https://a.example/a.jpgHTTPS://b.example/b.mp4", "more than one URL"),
        ("https://a.example/a.jpg,image,front", "a row of a table"),
        ("https://a.example/a.jpg,Image", "a row of a table"),
        ("https://drive.google.com/file/d/1abc/view?usp=sharing", "a page that shows a file"),
        ("http://drive.google.com/open?id=1abc", "a page that shows a file"),
        ("https://www.dropbox.com/s/abc/a.jpg?dl=0", "a page that shows a file"),
        ("https://www.dropbox.com/scl/fi/abc/a.jpg?rlkey=x", "a page that shows a file"),
        ("https://a.example/photo_#1.jpg", "%23"),
        ("https://a.example/photo_#1.jpg?v=2", "%23"),
        ("https://a.example/i?w=1&amp;h=2", "write & alone"),
    ],
)
def test_what_is_plainly_not_meant_is_refused(url: str, words: str) -> None:
    assert words in (judge_url(url) or "")


@pytest.mark.parametrize(
    "url",
    [
        "https://res.example/image/fetch/w_300,f_auto/https://cdn.example.com/a.jpg",
        "https://proxy.example/?url=https://cdn.example.com/a.jpg",
        "https://proxy.example/plain/https://cdn.example.com/a.jpg@png",
        "https://cdn.example.com/crop,1,2/a.jpg?fit=image",
        "https://cdn.example.com/a.jpg?tags=x,image",
        "https://cdn.example.com/a.jpg#top",
        "https://drive.google.com/uc?export=download&id=1abc",
        "https://www.dropbox.com/s/abc/a.jpg?rlkey=x&dl=1",
        "https://dl.dropboxusercontent.com/s/abc/a.jpg",
        "https://cdn.example.com/i?w=1&amplitude=2",
    ],
)
def test_what_only_looks_like_it_is_fine(url: str) -> None:
    assert judge_url(url) is None
