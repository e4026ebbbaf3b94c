#!/usr/bin/env bash
# Debian's Chromium and its driver, for the tests that look at a page; nothing is done if both are there.
set -euo pipefail
exec 9> "${TMPDIR:-/tmp}/petaseg-apt.lock"
flock 9
command -v chromium >/dev/null && command -v chromedriver >/dev/null && exit 0
apt-get update -q >/dev/null
DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=600 \
    chromium chromium-driver >/dev/null
