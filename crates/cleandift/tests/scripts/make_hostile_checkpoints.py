"""Writes golden/hostile: small checkpoints that nobody should open without care. None is dangerous to
a reader that runs nothing. Every one of them must be refused.

python make_hostile_checkpoints.py FOLDER      (Python's standard library alone)
"""
import io
import json
import pathlib
import struct
import sys
import zipfile

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)


def save(name, data):
    (folder / name).write_bytes(data)


def text(string):
    data = string.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def tensor(storage="FloatStorage", key="0", first=b"K\x00", shape=b"K\x02\x85", stride=b"K\x01\x85"):
    persistent = b"(" + text("storage") + b"ctorch\n" + storage.encode() + b"\n" + text(key) + text("cpu") + b"K\x02tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + persistent + first + shape + stride + b"\x89}tR"


def checkpoint(value=None, name="conv_in.weight"):
    return b"\x80\x02}" + text(name) + (tensor() if value is None else value) + b"s."


def archive(pickle, entries=(("data/0", b"\0" * 8),), compression=zipfile.ZIP_STORED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as file:
        file.writestr("archive/data.pkl", pickle)
        for name, data in entries:
            file.writestr(f"archive/{name}", data)
    return out.getvalue()


def call(module, name, argument):
    return f"c{module}\n{name}\n".encode() + argument + b"\x85R"


# Pickles that would run something.
for number, (module, name) in enumerate([
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("subprocess", "Popen"), ("builtins", "eval"),
    ("builtins", "exec"), ("builtins", "__import__"), ("builtins", "getattr"), ("runpy", "_run_code"),
    ("torch", "load"), ("torch.hub", "load"), ("torch.storage", "_load_from_bytes"), ("numpy", "load"),
    ("webbrowser", "open"), ("socket", "create_connection"), ("shutil", "rmtree"),
]):
    payload = call(module, name, text("touch /tmp/pwned"))
    save(f"call-{number:02}-{module}.{name}.bin", archive(checkpoint(payload)))
save("call-bare.bin", b"\x80\x02" + call("os", "system", text("id")) + b".")
save("call-beside-weights.bin", archive(
    b"\x80\x02}(" + text("conv_in.weight") + tensor() + text("hook") + call("os", "system", text("id")) + b"u."))
save("call-stack-global.bin", archive(
    b"\x80\x04}" + text("a") + b"\x8c\x02os\x8c\x06system\x93" + text("id") + b"\x85Rs."))
save("call-newobj.bin", archive(b"\x80\x02}" + text("a") + b"cos\nsystem\n" + text("id") + b"\x85\x81s."))
save("call-inst.bin", archive(b"\x80\x02}" + text("a") + b"(" + text("id") + b"ios\nsystem\ns."))
save("call-obj.bin", archive(b"\x80\x02}" + text("a") + b"(cos\nsystem\n" + text("id") + b"os."))
save("call-extension.bin", archive(b"\x80\x02}" + text("a") + b"\x82\x01s."))
save("call-unfinished.bin", archive(checkpoint(call("torch._utils", "_rebuild_tensor_v2", b"N"))))
# Pickles that ask for the moon.
save("pickle-deep.bin", archive(b"\x80\x02" + b"]" * 3000 + b"a" * 2999 + b"."))
save("pickle-marks.bin", archive(b"\x80\x02" + b"(" * 60000 + b"."))
save("pickle-long-text.bin", archive(b"\x80\x02X\xff\xff\xff\xffabc."))
save("pickle-longer-text.bin", archive(b"\x80\x04\x8d" + b"\xff" * 8 + b"abc."))
save("pickle-long-integer.bin", archive(b"\x80\x02\x8b\xff\xff\xff\x7f."))
save("pickle-memo.bin", archive(b"\x80\x02]r\xff\xff\xff\xffh\x07."))
bomb = b"\x80\x02]q\x00" + b"".join(b"]q" + bytes([n]) + b"(" + b"h" + bytes([n - 1]) + (b"h" + bytes([n - 1])) * 9 + b"e" for n in range(1, 60))
save("pickle-memo-bomb.bin", archive(bomb + b"."))
pair = b"(" + text("a") + b"K\x01l"
save("pickle-copies.bin", archive(
    b"\x80\x02(" + pair * 2000 + b"lq\x00" + b"ccollections\nOrderedDict\nh\x00\x85R0" * 600 + b"h\x00."))
save("pickle-itself.bin", archive(b"\x80\x02}q\x00" + text("state_dict") + b"h\x00s."))
save("pickle-empty-stack.bin", archive(b"\x80\x02R."))
save("pickle-protocol-0.bin", b"\x80\x00(dp0\n.")
save("pickle-no-stop.bin", archive(b"\x80\x02}"))
# Tensors that lie about themselves.
save("tensor-beyond.bin", archive(checkpoint(tensor(shape=b"M\xff\xff\x85"))))
save("tensor-huge.bin", archive(checkpoint(tensor(shape=b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x87", stride=b"K\x01K\x01K\x01\x87"))))
save("tensor-negative.bin", archive(checkpoint(tensor(first=b"J\xff\xff\xff\xff"))))
save("tensor-far.bin", archive(checkpoint(tensor(first=b"\x8a\x08" + b"\xff" * 7 + b"\x7f"))))
save("tensor-no-storage.bin", archive(checkpoint(tensor(key="7"))))
save("tensor-other-storage.bin", archive(checkpoint(tensor(key="../../etc/passwd"))))
save("tensor-quantised.bin", archive(checkpoint(tensor(storage="QInt8Storage"))))
save("tensor-strides.bin", archive(checkpoint(tensor(stride=b"K\x00\x85"))))
save("tensor-twice.bin", archive(b"\x80\x02}(" + (text("a") + tensor()) * 2 + b"u."))
# Archives.
good = archive(checkpoint())
save("zip-compressed.bin", archive(checkpoint(), compression=zipfile.ZIP_DEFLATED))
save("zip-bomb.bin", archive(checkpoint(), [("data/0", b"\0" * 4_000_000)], zipfile.ZIP_DEFLATED))
save("zip-truncated.bin", good[:-30])
save("zip-no-pickle.bin", good.replace(b"data.pkl", b"dota.pkl"))
save("zip-two-pickles.bin", archive(checkpoint(), [("data/0", b"\0" * 8), ("x/data.pkl", checkpoint())]))
save("zip-big-endian.bin", archive(checkpoint(), [("data/0", b"\0" * 8), ("byteorder", b"big")]))


def patched(at_record, offset, value):
    at = good.rindex(at_record)
    return good[: at + offset] + value + good[at + offset + len(value):]


save("zip-huge-count.bin", patched(b"PK\5\6", 10, b"\xfe\xff"))
save("zip-directory-outside.bin", patched(b"PK\5\6", 16, b"\xf0\xff\xff\x7f"))
save("zip-64-missing.bin", patched(b"PK\5\6", 16, b"\xff\xff\xff\xff"))
save("zip-entry-outside.bin", patched(b"PK\1\2", 42, b"\xf0\xff\xff\x7f"))
save("zip-entry-huge.bin", patched(b"PK\1\2", 20, b"\xf0\xff\xff\x7f\xf0\xff\xff\x7f"))
save("zip-overlap.bin", patched(b"PK\1\2", 42, b"\0\0\0\0"))
save("zip-encrypted.bin", patched(b"PK\1\2", 8, b"\x01\0"))
# The older form.
start = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\x02M\xe9\x03." + b"\x80\x02}."
keys = b"\x80\x02](" + text("0") + b"e."
save("legacy-call.ckpt", start + checkpoint(call("os", "system", text("id"))) + keys)
save("legacy-truncated.ckpt", start + checkpoint() + keys + struct.pack("<q", 2) + b"\0" * 7)
save("legacy-huge.ckpt", start + checkpoint() + keys + b"\xff" * 8 + b"\0" * 8)
save("legacy-no-key.ckpt", start + checkpoint() + b"\x80\x02]." + struct.pack("<q", 2) + b"\0" * 8)
save("legacy-version.ckpt", start.replace(b"M\xe9\x03", b"M\xe8\x03") + checkpoint() + keys)


# safetensors.
def safetensors(header, data=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(start, end, shape, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


save("st-overlap.safetensors", safetensors({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, b"\0" * 12))
save("st-gap.safetensors", safetensors({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, b"\0" * 12))
save("st-overflow.safetensors", safetensors({"a": entry(0, 4, [2**63, 2**63, 4])}, b"\0" * 4))
save("st-end-overflow.safetensors", safetensors({"a": entry(0, 2**64 - 1, [2])}, b"\0" * 8))
save("st-backwards.safetensors", safetensors({"a": entry(8, 0, [2])}, b"\0" * 8))
one = json.dumps(entry(0, 4, [1]))
save("st-duplicate.safetensors", safetensors(f'{{"a":{one},"a":{one}}}'.encode(), b"\0" * 4))
save("st-truncated.safetensors", safetensors({"a": entry(0, 4000, [1000])}, b"\0" * 4))
save("st-longer.safetensors", safetensors({"a": entry(0, 4, [1])}, b"\0" * 5))
save("st-header-huge.safetensors", safetensors(b"{}", length=2**63))
save("st-header-99-mb.safetensors", safetensors(b"{}      ", length=99_999_999))
save("st-deep.safetensors", safetensors(b'{"a":' + b"[" * 50000))
save("st-not-utf8.safetensors", safetensors(b'{"\xff\xfe":' + one.encode() + b"}", b"\0" * 4))
save("st-negative.safetensors", safetensors({"a": entry(0, 4, [-1])}, b"\0" * 4))
print(len(list(folder.iterdir())), "files")
