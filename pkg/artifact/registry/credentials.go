package registry

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"sync"

	"github.com/confine-dev/confine/pkg/reason"
)

// Credential is what a registry is given when it demands one. All of it is
// secret. The zero value is none.
type Credential struct {
	Username string
	Password string
	// IdentityToken is exchanged for access tokens at the token service.
	IdentityToken string
	// RegistryToken is sent to the registry as it is.
	RegistryToken string
}

// CredentialFunc returns the credential for a registry ("host" or "host:port"),
// or the zero value where it knows none. Its error's text must hold no secret.
type CredentialFunc func(ctx context.Context, host string) (Credential, error)

// credentialSource asks the caller's function, then the docker config file.
type credentialSource struct {
	ask  CredentialFunc
	path string
	read func(name string) ([]byte, error)
	// helpers logs once that a credential may be with a helper, which is not used.
	helpers func()
}

func newCredentialSource(opts Options) (*credentialSource, error) {
	s := &credentialSource{ask: opts.Credentials, path: opts.DockerConfig, read: opts.ReadFile}
	s.helpers = sync.OnceFunc(func() {
		opts.Log.Warn("the docker config file leaves credentials to a helper program, and this version runs none: put the registry under auths in it", "file", opts.DockerConfig)
	})
	if s.path == "" {
		return s, nil
	}
	if _, err := s.load(); err != nil {
		return nil, reason.New(reason.InstallFailed, s.path, "%w", err).
			WithAdvice("name a readable docker config file (https://docs.docker.com/reference/cli/docker/#docker-cli-configuration-file-configjson-properties)")
	}
	return s, nil
}

func (s *credentialSource) lookup(ctx context.Context, host string) (Credential, error) {
	if s.ask != nil {
		cred, err := s.ask(ctx, host)
		if err != nil || cred != (Credential{}) {
			return cred, err
		}
	}
	if s.path == "" {
		return Credential{}, nil
	}
	file, err := s.load()
	if err != nil {
		return Credential{}, err
	}
	cred, err := file.credential(host)
	if err == nil && cred == (Credential{}) && (file.CredsStore != "" || len(file.CredHelpers) > 0) {
		s.helpers()
	}
	return cred, err
}

// dockerConfig is what is read of a docker config file; other fields are not
// ours to judge.
type dockerConfig struct {
	Auths       map[string]dockerAuth      `json:"auths"`
	CredsStore  string                     `json:"credsStore"`
	CredHelpers map[string]json.RawMessage `json:"credHelpers"`
}

type dockerAuth struct {
	Auth          string `json:"auth"`
	Username      string `json:"username"`
	Password      string `json:"password"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// load reads the file. Errors repeat nothing of its content.
func (s *credentialSource) load() (*dockerConfig, error) {
	data, err := s.read(s.path)
	if err != nil {
		return nil, errors.New("the docker config file cannot be read: " + pathless(err))
	}
	var file dockerConfig
	if json.Unmarshal(data, &file) != nil {
		return nil, errors.New("the docker config file is not valid JSON of the expected form")
	}
	return &file, nil
}

// credential returns the entry of host itself; parent domains and other ports
// do not count.
func (f *dockerConfig) credential(host string) (Credential, error) {
	for _, key := range configKeys(host) {
		entry, ok := f.Auths[key]
		if !ok {
			continue
		}
		cred := Credential{
			Username: entry.Username, Password: entry.Password,
			IdentityToken: entry.IdentityToken, RegistryToken: entry.RegistryToken,
		}
		if entry.Auth == "" {
			return cred, nil
		}
		plain, err := base64.StdEncoding.DecodeString(entry.Auth)
		user, password, found := strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
		if err != nil || !found {
			return Credential{}, errors.New("the docker config file's entry for " + host + " is no base64 of user:password")
		}
		cred.Username, cred.Password = user, password
		return cred, nil
	}
	return Credential{}, nil
}

// configKeys are the spellings under which docker and its kin store the
// credential of a registry, the usual one first.
func configKeys(host string) []string {
	keys := []string{host, "https://" + host, "https://" + host + "/", "https://" + host + "/v1/", "https://" + host + "/v2/"}
	if host == dockerHubHost {
		keys = append([]string{"https://index.docker.io/v1/", "docker.io", "index.docker.io"}, keys...)
	}
	return keys
}
