#!/usr/bin/env bash
# Fetch the headers that building and testing need, by name, into a folder (build/bindings/dependencies):
#
#   onnxruntime/  ONNX Runtime's C API, out of an npm package (no Debian or Python package has it; 150 MB, once)
#   include/      nlohmann-json3-dev and, for the tests, libstb-dev of Debian
#
#   bindings/cpp/tools/fetch.sh FOLDER
set -euo pipefail
mkdir -p "${1:?usage: fetch.sh FOLDER}"
cd "$1"
HEADERS=com.github.asus4.onnxruntime@0.4.9

if [ ! -e onnxruntime/onnxruntime_c_api.h ]; then
    echo "fetching ONNX Runtime's headers ($HEADERS)"
    work=$(mktemp -d "$PWD/fetch.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    (cd "$work" && npm pack --silent "$HEADERS" >/dev/null && tar xzf ./*.tgz package/Plugins/Android/onnxruntime.aar)
    python3 -m zipfile -e "$work/package/Plugins/Android/onnxruntime.aar" "$work/aar"
    mkdir -p onnxruntime
    cp "$work"/aar/headers/*.h onnxruntime
fi
for package in nlohmann-json3-dev:nlohmann/json.hpp libstb-dev:stb/stb_image.h; do
    header=${package#*:} package=${package%%:*}
    [ ! -e "include/$header" ] || continue
    echo "fetching $package"
    mkdir -p debs "unpacked/$package" include
    (cd debs && apt-get download -qq "$package")
    dpkg-deb -x debs/"$package"_*.deb "unpacked/$package"
    cp -r "unpacked/$package/usr/include/." include
done
