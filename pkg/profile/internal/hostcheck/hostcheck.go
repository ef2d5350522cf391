// Package hostcheck refuses units that must not become files, whatever the
// kind. The callers of hosts have checked the same; hosts do not rely on it.
package hostcheck

import (
	"context"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/reason"
)

const (
	maxLabel     = 63  // RFC 1123, section 2.1
	maxSubdomain = 253 // the same, and Kubernetes' bound for object names
	maxFileName  = 128
	maxFiles     = 64 // as many as an artifact may have layers
)

// Unit refuses a unit with an owner, a digest or files that no host installs;
// the error is ProfileInvalid.
func Unit(u profile.Unit) error {
	if err := Owner(u.Owner); err != nil {
		return err
	}
	object := u.Owner.String()
	if err := u.Digest.Validate(); err != nil || u.Digest.Algorithm() != digest.SHA256 {
		return invalid(object, "%q is no sha256 digest", u.Digest)
	}
	if len(u.Files) == 0 || len(u.Files) > maxFiles {
		return invalid(object, "%d files, want 1 to %d", len(u.Files), maxFiles)
	}
	names := map[string]bool{}
	for _, f := range u.Files {
		if !isFileName(f.Name) {
			return invalid(object, "%q is no bare file name of letters, digits, '.', '_' and '-'", f.Name)
		}
		if names[f.Name] {
			return invalid(object, "two files are called %q", f.Name)
		}
		names[f.Name] = true
		if len(f.Data) > profile.MaxPayloadBytes {
			return invalid(object, "%s has %d bytes, more than %d", f.Name, len(f.Data), profile.MaxPayloadBytes)
		}
	}
	return nil
}

// Owner accepts a DNS label as namespace and a DNS subdomain as name, as
// Kubernetes does for the objects; the error is ProfileInvalid.
func Owner(o profile.Owner) error {
	if !IsLabel(o.Namespace) {
		return invalid("owner", "namespace %.80q is no DNS label", o.Namespace)
	}
	if len(o.Name) > maxSubdomain {
		return invalid("owner", "name %.32q... is longer than %d bytes", o.Name, maxSubdomain)
	}
	for label := range strings.SplitSeq(o.Name, ".") {
		if !IsLabel(label) {
			return invalid("owner", "name %q is no DNS subdomain", o.Name)
		}
	}
	return nil
}

// Stopped refuses further work once the context has ended.
func Stopped(ctx context.Context, o profile.Owner) error {
	if err := ctx.Err(); err != nil {
		return reason.New(reason.InstallFailed, o.String(), "stopped before it was done: %w", err)
	}
	return nil
}

// SameFiles reports whether both are the same files, whatever their order.
func SameFiles(a, b []profile.File) bool {
	return slices.EqualFunc(Sorted(a), Sorted(b), func(x, y profile.File) bool {
		return x.Name == y.Name && string(x.Data) == string(y.Data)
	})
}

// Sorted returns the files by name.
func Sorted(files []profile.File) []profile.File {
	return slices.SortedFunc(slices.Values(files), func(a, b profile.File) int { return strings.Compare(a.Name, b.Name) })
}

func invalid(object, format string, args ...any) error {
	return reason.New(reason.ProfileInvalid, object, format, args...).
		WithAdvice("rename it; nothing was written")
}

// IsLabel reports whether s is a DNS label of RFC 1123 in lower case.
func IsLabel(s string) bool {
	if s == "" || len(s) > maxLabel || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-'
	})
}

// isFileName reports whether s is a bare, harmless file name.
func isFileName(s string) bool {
	if s == "" || len(s) > maxFileName || s[0] == '.' || s[0] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		letter := (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z')
		return !letter && (r < '0' || r > '9') && r != '.' && r != '_' && r != '-'
	})
}
