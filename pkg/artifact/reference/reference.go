// Package reference reads and canonicalizes the names of artifacts: a
// repository, and the tag or digest in it. Trust is decided on canonical
// names, so there is one canonical spelling of each and it is made here.
package reference

import (
	"github.com/opencontainers/go-digest"
)

// Repository is the canonical name of a repository: lower-case host without
// default port and trailing dot, docker.io written out. The zero value names
// nothing; ParseRepository and Parse make valid ones.
type Repository struct {
	// Host is the registry, with a port where it is not the default.
	Host string
	// Path is the repository's path within the registry.
	Path string
}

// String renders host/path.
func (r Repository) String() string { return r.Host + "/" + r.Path }

// Reference names one artifact within a repository. With a digest, the tag is
// only a label.
type Reference struct {
	Repository Repository
	Tag        string
	Digest     digest.Digest
}
