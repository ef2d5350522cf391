// Package reference reads and canonicalizes the names of artifacts: a
// repository, and the tag or digest in it. Trust is decided on canonical
// names, so there is one canonical spelling of each and it is made here.
//
// A name always begins with its registry. Other tools guess one where it is
// missing, and do not all guess the same; a name that two programs could read
// as two repositories is refused with the spelling that is meant most often.
package reference

import (
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/reason"
)

// Bounds on names. The OCI distribution specification 1.1 ("Pulling
// manifests") bounds a tag at 128 characters and notes that many clients bound
// host and path together at 255.
const (
	MaxRepositoryBytes = 255
	MaxTagBytes        = 128
	// maxInputBytes bounds what is looked at: repository, tag and digest with
	// their separators, and what canonicalization removes.
	maxInputBytes = 512
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

// Segments returns the host followed by the segments of the path, which is
// what repository patterns match one by one.
func (r Repository) Segments() []string {
	return append([]string{r.Host}, strings.Split(r.Path, "/")...)
}

// Loopback reports whether the host is this machine by its name alone:
// localhost, an address in 127.0.0.0/8, or [::1]. Names that merely resolve to
// such an address are not.
func (r Repository) Loopback() bool { return isLoopback(hostOnly(r.Host)) }

// Tagged returns the reference to tag in r. It does not check the tag.
func (r Repository) Tagged(tag string) Reference { return Reference{Repository: r, Tag: tag} }

// Pinned returns the reference to d in r. It does not check the digest.
func (r Repository) Pinned(d digest.Digest) Reference {
	return Reference{Repository: r, Digest: d}
}

// Reference names one artifact within a repository. With a digest, the tag is
// only a label.
type Reference struct {
	Repository Repository
	Tag        string
	Digest     digest.Digest
}

// String renders repository[:tag][@digest]; Parse reads it back unchanged.
func (r Reference) String() string {
	s := r.Repository.String()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// ParseRepository reads the name of a repository, without tag and digest, and
// returns it in its canonical spelling. Errors are UnsupportedArtifact.
func ParseRepository(s string) (Repository, error) {
	ref, err := Parse(s)
	if err != nil {
		return Repository{}, err
	}
	if ref.Tag != "" || ref.Digest != "" {
		return Repository{}, refuse(s, "it names one artifact where a whole repository is meant").
			WithAdvice("write it without tag and digest: %s", ref.Repository)
	}
	return ref.Repository, nil
}

// ParsePinned reads a reference that must name its digest: REPO@DIGEST or
// REPO:TAG@DIGEST. Errors are UnsupportedArtifact.
func ParsePinned(s string) (Reference, error) {
	ref, err := Parse(s)
	if err != nil {
		return Reference{}, err
	}
	if ref.Digest != "" {
		return ref, nil
	}
	tagged := ref
	if tagged.Tag == "" {
		tagged.Tag = "TAG"
	}
	return Reference{}, refuse(s, "the digest is missing; a tag can be moved to other bytes at any time").
		WithAdvice("pin it as %s@sha256:…; `confine resolve %s` prints the digest", ref.Repository, tagged)
}

// Parse reads REPO, REPO:TAG, REPO@DIGEST or REPO:TAG@DIGEST, and returns it
// in its canonical spelling. No tag is ever added: a missing one stays empty.
// Errors are UnsupportedArtifact and never repeat user names or passwords.
func Parse(s string) (Reference, error) {
	if err := checkShape(s); err != nil {
		return Reference{}, err
	}
	name, digestText, hasDigest := strings.Cut(s, "@")
	var ref Reference
	if hasDigest {
		d, err := parseDigest(s, digestText)
		if err != nil {
			return Reference{}, err
		}
		ref.Digest = d
	}
	hostText, rest, ok := cutHost(name)
	if !ok {
		return Reference{}, noHost(s, name)
	}
	path, tag, hasTag := strings.Cut(rest, ":")
	if hasTag {
		if err := checkTag(s, tag); err != nil {
			return Reference{}, err
		}
		ref.Tag = tag
	}
	host, err := canonicalHost(s, hostText)
	if err != nil {
		return Reference{}, err
	}
	ref.Repository, err = newRepository(s, host, path)
	if err != nil {
		return Reference{}, err
	}
	return ref, nil
}

// checkShape refuses what is no name at all, before anything else reads it.
func checkShape(s string) error {
	switch {
	case s == "":
		return refuse(s, "the name is empty").WithAdvice("write REGISTRY/REPOSITORY, such as registry.example/team/web")
	case len(s) > maxInputBytes:
		return refuse(s, "the name has %d bytes, at most %d are read", len(s), maxInputBytes).
			WithAdvice("use a shorter name: host and path together have at most %d bytes", MaxRepositoryBytes)
	}
	if user, rest, found := strings.Cut(s, "@"); found && !digestLike(rest) && (strings.Contains(rest, "/") || !strings.Contains(user, "/")) {
		return refuse(s, "it holds a user name").
			WithAdvice("leave out what stands before the @; credentials belong in the docker config file")
	}
	if scheme, rest, found := strings.Cut(s, "://"); found {
		return refuse(s, "it begins with a scheme, and names have none").
			WithAdvice("remove %s:// and write %s", shown(scheme), shown(rest))
	}
	for _, r := range s {
		if r <= ' ' || r == 0x7f {
			return refuse(s, "it holds white space or a control character").WithAdvice("write the name without it")
		}
		if r > 0x7f {
			return refuse(s, "it holds a character outside ASCII").
				WithAdvice("write an internationalized host name in punycode (xn--…); paths and tags are ASCII")
		}
	}
	return nil
}

// cutHost splits off the registry. Only a first segment with a dot or a colon,
// or localhost, is one: that is the rule of docker and of the distribution
// project, without their fallback to Docker Hub.
func cutHost(name string) (host, rest string, ok bool) {
	host, rest, found := strings.Cut(name, "/")
	if !found {
		return "", "", false
	}
	if strings.ContainsAny(host, ".:[") || strings.EqualFold(host, "localhost") {
		return host, rest, true
	}
	return "", "", false
}

func noHost(s, name string) error {
	if host, _, found := strings.Cut(name, "/"); !found && looksLikeHost(host) {
		return refuse(s, "it names a registry and no repository").
			WithAdvice("write REGISTRY/REPOSITORY, such as %s/team/web", shown(host))
	}
	name = strings.TrimPrefix(name, "/")
	hub := "docker.io/" + name
	if !strings.Contains(name, "/") {
		hub = "docker.io/library/" + name
	}
	return refuse(s, "it does not begin with a registry, and guessing one would guess whom to trust").
		WithAdvice("write the registry out, such as registry.example/%s; for Docker Hub: %s; a registry without a dot needs its port, such as registry:5000",
			shown(name), shown(hub))
}

// looksLikeHost tells registry.example and registry:5000 from nginx:1.27.
func looksLikeHost(s string) bool {
	host, port, hasPort := strings.Cut(s, ":")
	if hasPort {
		return isNumber(port) && len(port) >= 2
	}
	return strings.EqualFold(host, "localhost") || strings.Contains(host, ".")
}

// refuse returns the error for the name s.
func refuse(s, format string, args ...any) *reason.Error {
	return reason.New(reason.UnsupportedArtifact, shown(s), format, args...)
}
