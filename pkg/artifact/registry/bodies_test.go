package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact"
	"github.com/confine-dev/confine/pkg/reason"
)

// body answers with content type and body as they are.
func body(contentType string, data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(data)
	}
}

// endless answers with bytes that never end.
func endless(contentType string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		for chunk := bytes.Repeat([]byte("x"), 64<<10); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	}
}

// chunked answers without announcing a length.
func chunked(contentType string, data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		_ = http.NewResponseController(w).Flush()
		_, _ = w.Write(data)
	}
}

// truncated announces all of data and sends half of it.
func truncated(contentType string, data []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data[:len(data)/2])
	}
}

func TestManifestBodies(t *testing.T) {
	manifest, desc, _ := testArtifact("{}")
	large := append(bytes.Clone(manifest), bytes.Repeat([]byte(" "), artifact.MaxManifestBytes)...)
	tests := map[string]struct {
		handler http.HandlerFunc
		digest  digest.Digest
		want    error
	}{
		"as it should be":          {body(ocispec.MediaTypeImageManifest, manifest), desc.Digest, nil},
		"parameters on the type":   {body(ocispec.MediaTypeImageManifest+"; charset=utf-8", manifest), desc.Digest, nil},
		"other bytes":              {body(ocispec.MediaTypeImageManifest, []byte("{}")), desc.Digest, reason.DigestMismatch},
		"one byte more":            {body(ocispec.MediaTypeImageManifest, append(bytes.Clone(manifest), ' ')), desc.Digest, reason.DigestMismatch},
		"empty":                    {body(ocispec.MediaTypeImageManifest, nil), desc.Digest, reason.DigestMismatch},
		"truncated":                {truncated(ocispec.MediaTypeImageManifest, manifest), desc.Digest, reason.RegistryUnavailable},
		"too large, and announced": {body(ocispec.MediaTypeImageManifest, large), digest.FromBytes(large), reason.TooLarge},
		"endless":                  {endless(ocispec.MediaTypeImageManifest), desc.Digest, reason.TooLarge},
		"a web page":               {body("text/html", manifest), desc.Digest, reason.RegistryUnavailable},
		"no type":                  {body("", manifest), desc.Digest, reason.RegistryUnavailable},
		"called an index":          {body(ocispec.MediaTypeImageIndex, manifest), desc.Digest, reason.RegistryUnavailable},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			repo := serve(t, test.handler)
			data, err := newTestClient(t).Manifest(t.Context(), repo, test.digest)
			checkRefusal(t, data, err, test.want)
		})
	}
}

func TestBlobBodies(t *testing.T) {
	payload := []byte(`{"defaultAction":"SCMP_ACT_ERRNO"}`)
	desc := blobOf("application/json", payload).Descriptor
	withSize := func(size int64) ocispec.Descriptor {
		d := desc
		d.Size = size
		return d
	}
	const binary = "application/octet-stream"
	flipped := bytes.Clone(payload)
	flipped[0] ^= 1
	tests := map[string]struct {
		handler http.HandlerFunc
		desc    ocispec.Descriptor
		want    error
	}{
		"as it should be":           {body(binary, payload), desc, nil},
		"no type":                   {body("", payload), desc, nil},
		"other bytes":               {body(binary, flipped), desc, reason.DigestMismatch},
		"a byte more":               {body(binary, append(bytes.Clone(payload), ' ')), desc, reason.DigestMismatch},
		"a byte less":               {body(binary, payload[1:]), desc, reason.DigestMismatch},
		"the descriptor lies low":   {body(binary, payload), withSize(desc.Size - 1), reason.DigestMismatch},
		"the descriptor lies high":  {body(binary, payload), withSize(desc.Size + 1), reason.DigestMismatch},
		"unannounced":               {chunked(binary, payload), desc, nil},
		"unannounced, lies low":     {chunked(binary, payload), withSize(desc.Size - 1), reason.DigestMismatch},
		"unannounced, lies high":    {chunked(binary, payload), withSize(desc.Size + 1), reason.DigestMismatch},
		"truncated":                 {truncated(binary, payload), desc, reason.RegistryUnavailable},
		"endless":                   {endless(binary), desc, reason.DigestMismatch},
		"a web page":                {body("text/html; charset=utf-8", payload), desc, reason.RegistryUnavailable},
		"negative size":             {body(binary, payload), withSize(-1), reason.TooLarge},
		"more than an artifact has": {body(binary, payload), withSize(artifact.MaxArtifactBytes + 1), reason.TooLarge},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			repo := serve(t, test.handler)
			data, err := newTestClient(t).Blob(t.Context(), repo, test.desc)
			checkRefusal(t, data, err, test.want)
		})
	}
}

// checkRefusal demands no bytes with an error, and a reason with advice.
func checkRefusal(t *testing.T, data []byte, err, want error) {
	t.Helper()
	if want == nil {
		if err != nil || len(data) == 0 {
			t.Errorf("got %d bytes and %v, want the bytes", len(data), err)
		}
		return
	}
	if !errors.Is(err, want) || data != nil {
		t.Errorf("got %d bytes and %v, want none and %v", len(data), err, want)
	}
	if e, ok := reason.Of(err); !ok || e.Object == "" || e.WhatToDo() == "" {
		t.Errorf("%v names no object or no advice", err)
	}
}

func TestEndlessBodiesAreLeft(t *testing.T) {
	_, desc, _ := testArtifact("{}")
	const most = 64 << 20 // the limit, and what lies in buffers on the way
	sent := make(chan int, 1)
	repo := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		total, chunk := 0, bytes.Repeat([]byte("x"), 64<<10)
		for total <= most {
			n, err := w.Write(chunk)
			total += n
			if err != nil {
				break
			}
		}
		sent <- total
	}))
	data, err := newTestClient(t).Manifest(t.Context(), repo, desc.Digest)
	checkRefusal(t, data, err, reason.TooLarge)
	if total := <-sent; total > most {
		t.Errorf("more than %d bytes were taken", most)
	}
}

func TestOtherDigestsAreNotAskedFor(t *testing.T) {
	manifest, _, _ := testArtifact("{}")
	var log requestLog
	c := newTestClient(t, withLog(&log))
	repo := serve(t, body(ocispec.MediaTypeImageManifest, manifest))
	for _, d := range []digest.Digest{digest.SHA512.FromBytes(manifest), "", "sha256:x", "sha256:../../x", "md5:00"} {
		data, err := c.Manifest(t.Context(), repo, d)
		checkRefusal(t, data, err, reason.UnsupportedArtifact)
		data, err = c.Blob(t.Context(), repo, ocispec.Descriptor{Digest: d, Size: int64(len(manifest))})
		checkRefusal(t, data, err, reason.UnsupportedArtifact)
	}
	if got := log.take(); len(got) != 0 {
		t.Errorf("requests were sent: %q", got)
	}
}

func TestSlowRegistries(t *testing.T) {
	manifest, desc, _ := testArtifact(strings.Repeat("x", 100_000))
	slowly := func(pause time.Duration, first []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			_, _ = w.Write(first)
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte(" ")); err != nil || http.NewResponseController(w).Flush() != nil {
					return
				}
				time.Sleep(pause) // of the bubble's clock, which takes no time
			}
		}
	}
	hangs := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	hangsInBody := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	tests := map[string]struct {
		handler http.HandlerFunc
		within  time.Duration // of one attempt
	}{
		"never answers":                 {hangs, 20 * time.Second},
		"never sends the body":          {hangsInBody, 10 * time.Second},
		"one byte a second":             {slowly(time.Second, nil), 10 * time.Second},
		"fast at first, then trickling": {slowly(time.Second, bytes.Repeat([]byte(" "), 20<<10)), 20 * time.Second},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, repo := servePipes(t, test.handler)
				c.opts.MaxAttempts = 1
				began := time.Now()
				data, err := c.Manifest(t.Context(), repo, desc.Digest)
				checkRefusal(t, data, err, reason.RegistryUnavailable)
				if took := time.Since(began); took > test.within {
					t.Errorf("cut off after %s, want at most %s", took, test.within)
				}
			})
		})
	}
	t.Run("slow but steady is read", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			c, repo := servePipes(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
				for chunk := range slices.Chunk(manifest, 100) {
					_, _ = w.Write(chunk)
					_ = http.NewResponseController(w).Flush()
					time.Sleep(time.Second)
				}
			}))
			if _, err := c.Manifest(t.Context(), repo, desc.Digest); err != nil {
				t.Errorf("Manifest: %v", err)
			}
		})
	})
}

func TestAttemptIsBoundedAsAWhole(t *testing.T) {
	payload := bytes.Repeat([]byte("x"), 4<<20)
	synctest.Test(t, func(t *testing.T) {
		c, repo := servePipes(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for chunk := range slices.Chunk(payload, 32<<10) { // fast enough for the window
				if _, err := w.Write(chunk); err != nil || http.NewResponseController(w).Flush() != nil {
					return
				}
				time.Sleep(5 * time.Second)
			}
		}))
		c.opts.MaxAttempts = 1
		began := time.Now()
		data, err := c.Blob(t.Context(), repo, blobOf("", payload).Descriptor)
		checkRefusal(t, data, err, reason.RegistryUnavailable)
		if took := time.Since(began); took != c.opts.RequestTimeout {
			t.Errorf("took %s, want %s", took, c.opts.RequestTimeout)
		}
	})
}

func TestCallerGivesUpInTheMiddle(t *testing.T) {
	_, desc, _ := testArtifact("{}")
	arrived := make(chan struct{}, 10)
	repo := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	_, err := newTestClient(t).Manifest(ctx, repo, desc.Digest)
	if !errors.Is(err, context.Canceled) || !errors.Is(err, reason.RegistryUnavailable) {
		t.Errorf("got %v, want RegistryUnavailable with context.Canceled", err)
	}
	if n := len(arrived); n != 0 {
		t.Errorf("%d more requests after the caller gave up", n)
	}
}

func TestAnswersThatChange(t *testing.T) {
	manifest, desc, _ := testArtifact("{}")
	n := 0
	repo := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n++
		data := manifest
		if n > 1 {
			data = fmt.Appendf(nil, `{"n":%d}`, n)
		}
		body(ocispec.MediaTypeImageManifest, data)(w, nil)
	}))
	c := newTestClient(t)
	got, err := c.Resolve(t.Context(), repo.Tagged("v1"))
	if err != nil || got.Digest != desc.Digest || got.Size != desc.Size || got.MediaType != desc.MediaType {
		t.Fatalf("Resolve = %+v, %v, want %+v", got, err, desc)
	}
	if data, err := c.Manifest(t.Context(), repo, got.Digest); !errors.Is(err, reason.DigestMismatch) || data != nil {
		t.Errorf("Manifest = %q, %v, want DigestMismatch", data, err)
	}
}
