// Package registry speaks to OCI registries, and is the only package that
// does. It implements artifact.Fetcher, and pushes artifacts and attaches
// signatures.
//
// Everything a registry sends is foreign: every body, list, page, redirect
// and second is bounded, every byte with a known digest is compared with it,
// and nothing is trusted because of the place it came from. The package
// speaks the OCI distribution specification v1.1
// (https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md)
// with oras-go, which builds the requests, reads the answers' form and answers
// challenges. Below oras-go, transport says where requests may go, follows
// redirects and bounds and judges answers; above it, exchange retries and
// explains. docs/decisions/2026-11-23-registry-client.md says what is whose.
package registry
