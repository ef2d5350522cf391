// Package registry speaks to OCI registries, and is the only package that
// does. It implements artifact.Fetcher, and pushes artifacts and attaches
// signatures.
//
// Everything a registry sends is foreign: every body, list, page, redirect
// and second is bounded, every byte with a known digest is compared with it,
// and nothing is trusted because of the place it came from. The package
// speaks the OCI distribution specification v1.1
// (https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md)
// over net/http itself, because the number of requests, where they go and
// what they carry are part of what Confine promises.
package registry
