#!/bin/sh
# Pushes and signs a profile with oras and cosign alone. Any CI can run this.
#
#   REPOSITORY=registry.example.com/profiles/web TAG=1.0.0 COSIGN_PASSWORD=... \
#     sh oras-and-cosign.sh nginx.json cosign.key
set -eu
profile=$1
key=$2

# The media type says what the file is; the annotations are signed with it.
digest=$(oras push --format go-template='{{.digest}}' \
  --artifact-type application/vnd.confine.profiles.v1 \
  --annotation dev.confine.version="${TAG#v}" \
  "$REPOSITORY:$TAG" "$profile:application/vnd.confine.seccomp.v1+json")

# Signatures are made for a digest, never for a tag. With a key alone there is
# no transparency log: docs/trust.md says what each line of cosign needs for that.
# shellcheck disable=SC2086 # COSIGN_FLAGS holds several flags
cosign sign --yes --key "$key" ${COSIGN_FLAGS-} "$REPOSITORY@$digest"

echo "$REPOSITORY@$digest"
