#!/bin/sh
# Commits the wanted version of an environment: commit-version.sh ENVIRONMENT VERSION, in a clone of the deployment
# repository. When somebody else pushes at the same time, it takes over that commit and tries again.
set -eu
environment=$1 version=$2
file=deploy/kubernetes/overlays/$environment/version
[ -f "$file" ] || { echo "cannot commit: there is no $file" >&2; exit 1; }
tries=5
while :; do
    git pull --quiet --rebase
    printf '%s\n' "$version" >"$file"
    git diff --quiet -- "$file" && { echo "$environment is at $version already" >&2; exit 0; }
    git commit --quiet -m "index-tts $environment: $version" -- "$file"
    git push --quiet && exit 0
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { echo "cannot push: others keep pushing" >&2; exit 1; }
    git reset --quiet --hard '@{upstream}'
done
