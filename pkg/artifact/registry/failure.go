package registry

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/confine-dev/confine/pkg/reason"
)

const (
	maxErrorBody = 4 << 10 // bytes read of a registry's error body
	maxShownText = 200     // bytes of foreign text repeated in a message
)

// Causes with which an attempt is cut off.
var (
	errAttemptTimeout = errors.New("the request took too long")
	errTrickle        = errors.New("the answer comes too slowly")
)

// failure is one attempt that did not succeed.
type failure struct {
	err *reason.Error
	// transient is set where another attempt may succeed.
	transient bool
	// status is the HTTP status, or 0 where there was no answer.
	status int
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// asFailure finds the failure in err; anything else is not tried again.
func asFailure(object string, err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if e, ok := reason.Of(err); ok {
		return &failure{err: e}
	}
	return &failure{err: reason.New(reason.RegistryUnavailable, object, "%w", err)}
}

// lasting returns a failure that another attempt would not change.
func lasting(r reason.Reason, object, format string, args ...any) *failure {
	return &failure{err: reason.New(r, object, format, args...)}
}

// passing returns a failure that another attempt may change.
func passing(r reason.Reason, object, format string, args ...any) *failure {
	return &failure{err: reason.New(r, object, format, args...), transient: true}
}

// canceled is the error of work whose caller gave up.
func canceled(ctx context.Context, object string) *reason.Error {
	return reason.New(reason.RegistryUnavailable, object, "given up: %w", context.Cause(ctx))
}

// networkFailure maps an error of the transport. ctx is the attempt's.
func networkFailure(ctx context.Context, object, host string, err error) *failure {
	cause := context.Cause(ctx)
	var certificate *tls.CertificateVerificationError
	var dns *net.DNSError
	refused, isRefused := errors.AsType[*addressError](err)
	switch {
	case isRefused:
		f := lasting(reason.RegistryUnavailable, object, "%w", refused)
		f.err = f.err.WithAdvice("reach the registry at an address that is allowed: docs/threat-model.md lists the rules")
		return f
	case errors.Is(cause, errTrickle), errors.Is(cause, errAttemptTimeout):
		return passing(reason.RegistryUnavailable, object, "%s: %w", host, cause)
	case isPlainHTTP(err):
		f := lasting(reason.RegistryUnavailable, object, "%s cannot be asked: %w", host, errPlainHTTP)
		f.err = f.err.WithAdvice("let the registry speak TLS; plain http is used on loopback only")
		return f
	case errors.As(err, &certificate):
		f := lasting(reason.RegistryUnavailable, object, "the certificate of %s is not accepted: %s", host, clean(certificate.Err.Error(), nil))
		f.err = f.err.WithAdvice("give the registry a certificate for its name from a known authority, or name its authority in a CA file (--ca-file)")
		return f
	case errors.As(err, &dns):
		return passing(reason.RegistryUnavailable, object, "the name %s cannot be resolved", clean(dns.Name, nil))
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return passing(reason.RegistryUnavailable, object, "%s closed the connection in the middle of its answer", host)
	}
	return passing(reason.RegistryUnavailable, object, "%s: %s", host, clean(err.Error(), nil))
}

// statusFailure maps an answer that is no success. It reads a little of its
// body; secrets are what the request carried, and never repeated.
func statusFailure(resp *http.Response, object string, secrets []string, now time.Time) *failure {
	f := &failure{status: resp.StatusCode}
	r := reason.RegistryUnavailable
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized, code == http.StatusForbidden:
		r = reason.Unauthorized
	case code == http.StatusNotFound:
		r = reason.ArtifactNotFound
	case code == http.StatusTooManyRequests:
		r, f.transient = reason.RateLimited, true
	case code == http.StatusRequestTimeout, code >= 500 && code != http.StatusNotImplemented:
		f.transient = true
	}
	text := "HTTP " + strconv.Itoa(resp.StatusCode)
	if said := errorBody(resp, secrets); said != "" {
		text += ": " + said
	}
	f.err = reason.New(r, object, "%s", text)
	if f.transient {
		f.err.RetryAfter = retryAfter(resp.Header.Get("Retry-After"), now)
	}
	return f
}

// errorBody renders the first error of the body's list, as the OCI
// distribution specification 1.1 ("Error codes") has it. Other bodies, such as
// a proxy's HTML page, are not repeated.
func errorBody(resp *http.Response, secrets []string) string {
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		return ""
	}
	var body struct {
		Errors []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if json.Unmarshal(data, &body) != nil || len(body.Errors) == 0 {
		return ""
	}
	first := body.Errors[0]
	return strings.Trim(clean(first.Code+": "+first.Message, secrets), ": ")
}

// queryRegexp finds the query of a URL, where signatures and tokens stand.
var queryRegexp = regexp.MustCompile(`\?[^\s"'<>]+`)

// clean makes foreign text fit for a message: without secrets, queries of
// URLs and control characters, on one line and short.
func clean(text string, secrets []string) string {
	for _, secret := range secrets {
		if secret != "" {
			text = strings.ReplaceAll(text, secret, "[removed]")
		}
	}
	text = queryRegexp.ReplaceAllString(text, "?[removed]")
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return ' '
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxShownText {
		text = strings.ToValidUTF8(text[:maxShownText], "") + "…"
	}
	return text
}

// retryAfter reads a Retry-After header: seconds or a date (RFC 9110, section
// 10.2.3). What cannot be read counts as absent, what lies in the past as zero.
func retryAfter(value string, now time.Time) time.Duration {
	if value == "" {
		return 0
	}
	const most = 365 * 24 * time.Hour // keeps the product below within range
	if seconds, err := strconv.ParseUint(value, 10, 63); err == nil {
		if seconds > uint64(most/time.Second) {
			return most
		}
		return time.Duration(seconds) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), most)
}
