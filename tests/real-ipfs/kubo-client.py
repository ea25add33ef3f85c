"""A Python client of Kubo's RPC API against any server. Prints the responses.

Usage: kubo-client.py HOST PORT
"""

import sys
import tempfile
import warnings
from pathlib import Path

# The library warns at each call about a newer Kubo.
warnings.simplefilter("ignore")
import ipfshttpclient  # noqa: E402

ipfshttpclient.client.assert_version = lambda *_, **__: None
client = ipfshttpclient.connect(f"/ip4/{sys.argv[1]}/tcp/{sys.argv[2]}/http", session=True)


def told(name, call):
    try:
        answer = call()
    except ipfshttpclient.exceptions.Error as error:
        answer = f"{type(error).__name__}: {error}"
    print(name, answer, flush=True)
    return answer


def plain(answer):
    return sorted(map(repr, answer)) if isinstance(answer, list) else repr(answer)


with tempfile.TemporaryDirectory() as folder:
    root = Path(folder) / "folder"
    (root / "below").mkdir(parents=True)
    (root / "one.txt").write_text("one")
    (root / "below" / "two.txt").write_text("two")
    told("add", lambda: plain(client.add(str(root / "one.txt"))))
    told("add many", lambda: plain(client.add(str(root), recursive=True)))
    told("add wrapped", lambda: plain(client.add(str(root / "one.txt"), wrap_with_directory=True)))
    told("add only hash", lambda: plain(client.add(str(root / "one.txt"), only_hash=True)))
    told("add no pin", lambda: plain(client.add(str(root / "one.txt"), pin=False, cid_version=1)))
    cid = client.add(str(root), recursive=True)[-1]["Hash"]
text = told("add bytes", lambda: client.add_bytes(b"bytes"))
told("add str", lambda: client.add_str("text"))
told("add json", lambda: client.add_json({"a": 1}))
told("cat", lambda: client.cat(text))
told("ls", lambda: plain(client.ls(cid)))
told("pin ls", lambda: sorted(client.pin.ls(type="recursive")["Keys"]))
told("pin ls one", lambda: plain(client.pin.ls(cid)))
told("pin rm", lambda: plain(client.pin.rm(cid)))
told("pin rm again", lambda: plain(client.pin.rm(cid)))
told("pin ls gone", lambda: plain(client.pin.ls(cid, type="recursive")))
told("pin add", lambda: plain(client.pin.add(cid)))
told("pin add several", lambda: plain(client.pin.add(cid, text)))
told("pin add direct", lambda: plain(client.pin.add(cid, recursive=False)))
told("pin update", lambda: plain(client.pin.update(cid, text)))
other = client.add_bytes(b"another")
client.pin.rm(other)
told("pin update", lambda: plain(client.pin.update(cid, other)))
told("block put", lambda: client.block.stat(text)["Size"])
told("block get", lambda: client.block.get(text))
told("refs", lambda: plain(client.unstable.refs(cid)))
told("repo stat", lambda: sorted(client.repo.stat()))
told("id", lambda: sorted(client.id())[:3])
told("gone", lambda: client.cat("/ipfs/" + cid + "/nothing"))
print("ALL OK")
