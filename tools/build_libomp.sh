#!/bin/sh
# Builds LLVM's OpenMP runtime for macOS wheels, which bundle it:   sh tools/build_libomp.sh PREFIX [SOURCES]
#
# From source, because a library made for the system of the building machine would not load on an older one: with
# MACOSX_DEPLOYMENT_TARGET as it is in the environment. Without SOURCES, a folder that holds openmp/, LLVM's release
# is fetched. The hashes are those of LLVM's own release files.
set -eu
prefix=$1
version=17.0.3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sources=${2:-$work}
cd "$work"

fetch() { # name, sha256
    curl -fsSLO "https://github.com/llvm/llvm-project/releases/download/llvmorg-$version/$1-$version.src.tar.xz"
    echo "$2  $1-$version.src.tar.xz" | shasum -a 256 -c -
    tar xf "$1-$version.src.tar.xz"
    mv "$1-$version.src" "$1"
}
if [ "$sources" = "$work" ]; then
    fetch openmp e04172c067f256d06cd8112abb49bc65f4e1d986a4b49b36cd837dfee3cdd274
    fetch cmake 54fc534f0da09088adbaa6c3bfc9899a500153b96e60c2fb9322a7aa37b1027a
fi

# Without the aliases, by which it would also be found as gcc's libgomp. By its install name delocate finds it: CMake's
# own, @rpath/libomp.dylib, says nothing where no run path is set.
cmake -S "$sources/openmp" -B build -DCMAKE_BUILD_TYPE=Release -DCMAKE_INSTALL_PREFIX="$prefix" \
    -DLIBOMP_INSTALL_ALIASES=OFF -DCMAKE_INSTALL_NAME_DIR="$prefix/lib" \
    -DCMAKE_OSX_DEPLOYMENT_TARGET="${MACOSX_DEPLOYMENT_TARGET:-11.0}"
cmake --build build --parallel
cmake --install build
