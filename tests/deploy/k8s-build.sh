#!/bin/bash
# Builds a real Kubernetes control plane, once, from Debian's source package: kube-apiserver, kube-controller-manager,
# kube-scheduler and kubectl 1.20.2, and unpacks etcd next to them.
#
#   tests/deploy/k8s-build.sh          prints the folder of the binaries on its last line
#
# Everything lands in ${XDG_CACHE_HOME:-~/.cache}/petaseg/kubernetes-1.20.2 and nowhere else: nothing is installed, and
# apt's own sources and lists are not touched (a private copy of them gets the deb-src entry). Needs
# Debian 12, make, and about 4 GB of disk while it builds. Later calls return at once.
set -euo pipefail

VERSION=1.20.2
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/petaseg/kubernetes-$VERSION
PROGRAMS=(kube-apiserver kube-controller-manager kube-scheduler kubectl)
SELF=$(realpath "${BASH_SOURCE[0]}")
WORK=$CACHE/build
LOG=$CACHE/build.log
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg

say() { echo "kubernetes $VERSION: $*" >&2; }
die() { say "$*"; exit 1; }

apt_private() {
  apt-get -q -o Dir::Etc::SourceList="$WORK/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::lists="$WORK/apt/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
    -o APT::Sandbox::User="$(id -un)" "$@"
}

# The machine's own Debian mirrors, with deb-src added, in a file of ours.
private_sources() {
  mkdir -p "$WORK/apt/lists/partial"
  apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' | sort -u |
    while read -r uri release component; do
      case "$release/$component" in
      bookworm/main | bookworm-updates/main | bookworm-security/main)
        for kind in deb deb-src; do echo "$kind [signed-by=$KEYRING] $uri $release $component"; done ;;
      esac
    done > "$WORK/apt/sources.list"
  grep -q ' bookworm main$' "$WORK/apt/sources.list" || die "apt knows no mirror of Debian 12 (bookworm main); add one"
}

fetch() {
  private_sources
  apt_private update
  cd "$WORK"
  apt_private source --download-only kubernetes
  apt_private download golang-1.19-go golang-1.19-src etcd-server
  for package in golang-1.19-go_*.deb golang-1.19-src_*.deb; do dpkg-deb -x "$package" "$WORK/go"; done
  dpkg-deb -x etcd-server_*.deb "$WORK/etcd"
  mkdir -p source
  tar xzf kubernetes_*.orig.tar.gz -C source --strip-components=1
}

# The recipe of the package's debian/rules, for the programs that we need.
compile() {
  cd "$WORK/source"
  mkdir -p .go/src/k8s.io
  ln -sfn ../../.. .go/src/k8s.io/kubernetes
  sed -i 's/rsync -pc/cp -p/' hack/lib/golang.sh # its only use of rsync is to copy one program
  env HOME="$WORK" GOROOT="$WORK/go/usr/lib/go-1.19" PATH="$WORK/go/usr/lib/go-1.19/bin:$PATH" GOPATH="$PWD/.go" \
    GOCACHE="$WORK/gocache" GOFLAGS=-mod=vendor GOTOOLCHAIN=local GOPROXY=off CGO_ENABLED=0 KUBE_BUILD_PLATFORMS= \
    make WHAT="${PROGRAMS[*]/#/cmd/}" GOLDFLAGS="-s -w"
}

store() {
  mkdir -p "$WORK/bin"
  cp -L "${PROGRAMS[@]/#/$WORK/source/_output/bin/}" "$WORK/etcd/usr/bin/etcd" "$WORK/bin/"
  "$WORK/bin/kube-apiserver" --version >&2
  "$WORK/bin/etcd" --version > /dev/null
  rm -rf "$CACHE/bin"
  mv "$WORK/bin" "$CACHE/bin"
}

# A step in its own shell, because `set -e` is off inside `if` and `||`; the lock is not handed on.
run_step() {
  say "$1${2:+: $2}"
  bash -c "set -euo pipefail; source '$SELF'; $1" 9>&- >> "$LOG" 2>&1 && return
  tail -n 30 "$LOG" >&2
  die "the step '$1' failed; the whole log is $LOG"
}

main() {
  command -v apt-get > /dev/null && grep -q '^VERSION_CODENAME=bookworm' /etc/os-release ||
    die "is built from the source package of Debian 12 (bookworm); this machine has another system"
  mkdir -p "$CACHE"
  exec 9> "$CACHE/lock"
  flock -n 9 || { say "waiting for another build"; flock 9; }
  if [ ! -d "$CACHE/bin" ]; then
    rm -rf "$WORK"
    mkdir -p "$WORK"
    : > "$LOG"
    run_step fetch "the source package, Go and etcd, 100 MB"
    run_step compile "${PROGRAMS[*]}; six minutes on two idle cores"
    run_step store
    rm -rf "$WORK"
    say "ready"
  fi
  echo "$CACHE/bin"
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then main; fi
