package host

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/internal/hostcheck"
)

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
	hash := sha256.New()
	for _, f := range hostcheck.Sorted(files) {
		for _, part := range [][]byte{[]byte(f.Name), f.Data} {
			var size [8]byte
			binary.BigEndian.PutUint64(size[:], uint64(len(part)))
			hash.Write(size[:])
			hash.Write(part)
		}
	}
	return fingerprint(hash.Sum(nil))
}
