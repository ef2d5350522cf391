#!/bin/sh
# Lints, pushes and signs a profile with confine alone. The same input makes
# the same digest, so running it again changes nothing.
#
#   REPOSITORY=registry.example.com/profiles/web TAG=1.0.0 COSIGN_PASSWORD=... \
#     sh confine.sh nginx.json cosign.key
set -eu
profile=$1
key=$2

confine lint --strict "$profile" >&2
# A version has no leading v: policies compare it as a semantic version.
# Not piped: a pipe would hide that the push failed.
pushed=$(confine push "$REPOSITORY:$TAG" "$profile" --artifact-version "${TAG#v}" --key "$key")
echo "$pushed" | tail -n 1
