package host

import (
	"crypto/sha256"
	"encoding/binary"
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

// checkUnit refuses what must not become a path. The caller has checked the
// same; this side does not rely on it.
func checkUnit(u profile.Unit) error {
	if err := checkOwner(u.Owner); err != nil {
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

// checkOwner accepts a DNS label as namespace and a DNS subdomain as name,
// as Kubernetes does for the objects.
func checkOwner(o profile.Owner) error {
	if !isLabel(o.Namespace) {
		return invalid(kindName, "namespace %q is no DNS label", o.Namespace)
	}
	if len(o.Name) > maxSubdomain {
		return invalid(kindName, "name %.32q... is longer than %d bytes", o.Name, maxSubdomain)
	}
	for label := range strings.SplitSeq(o.Name, ".") {
		if !isLabel(label) {
			return invalid(kindName, "name %q is no DNS subdomain", o.Name)
		}
	}
	return nil
}

func invalid(object, format string, args ...any) error {
	return reason.New(reason.ProfileInvalid, object, format, args...).
		WithAdvice("rename it; nothing was written")
}

// isLabel reports whether s is a DNS label of RFC 1123 in lower case.
func isLabel(s string) bool {
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

// folderName is the artifact folder of a digest, "sha256-<hex>".
func folderName(d digest.Digest) string {
	return d.Algorithm().String() + "-" + d.Encoded()
}

// folderDigest is the reverse of folderName.
func folderDigest(folder string) (digest.Digest, bool) {
	algorithm, encoded, ok := strings.Cut(folder, "-")
	d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), encoded)
	return d, ok && algorithm == digest.SHA256.String() && d.Validate() == nil
}

// fingerprintOf is equal for equal sets of files, whatever their order.
func fingerprintOf(files []profile.File) fingerprint {
	sorted := slices.SortedFunc(slices.Values(files), func(a, b profile.File) int { return strings.Compare(a.Name, b.Name) })
	hash := sha256.New()
	for _, f := range sorted {
		for _, part := range [][]byte{[]byte(f.Name), f.Data} {
			var size [8]byte
			binary.BigEndian.PutUint64(size[:], uint64(len(part)))
			hash.Write(size[:])
			hash.Write(part)
		}
	}
	return fingerprint(hash.Sum(nil))
}
