package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/confine-dev/confine/pkg/reason"
)

// withPassword gives every registry the same credential.
func withPassword(user, password string) func(*Options) {
	return func(o *Options) {
		o.Credentials = func(context.Context, string) (Credential, error) {
			return Credential{Username: user, Password: password}, nil
		}
	}
}

func dockerConfigFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDockerConfig(t *testing.T) {
	auth := func(plain string) string { return base64.StdEncoding.EncodeToString([]byte(plain)) }
	tests := map[string]struct {
		config, host string
		want         Credential
	}{
		"auth":               {`{"auths":{"r.test":{"auth":"` + auth("u:p:q") + `"}}}`, "r.test", Credential{Username: "u", Password: "p:q"}},
		"plain fields":       {`{"auths":{"r.test":{"username":"u","password":"p"}}}`, "r.test", Credential{Username: "u", Password: "p"}},
		"identity token":     {`{"auths":{"r.test":{"auth":"` + auth("u:") + `","identitytoken":"t"}}}`, "r.test", Credential{Username: "u", IdentityToken: "t"}},
		"registry token":     {`{"auths":{"r.test":{"registrytoken":"t"}}}`, "r.test", Credential{RegistryToken: "t"}},
		"with port":          {`{"auths":{"r.test:5000":{"username":"u"}}}`, "r.test:5000", Credential{Username: "u"}},
		"another port":       {`{"auths":{"r.test:5000":{"username":"u"}}}`, "r.test", Credential{}},
		"a parent domain":    {`{"auths":{"test":{"username":"u"}}}`, "r.test", Credential{}},
		"a repository's":     {`{"auths":{"r.test/team":{"username":"u"}}}`, "r.test", Credential{}},
		"old spelling":       {`{"auths":{"https://r.test/v1/":{"username":"u"}}}`, "r.test", Credential{Username: "u"}},
		"plain http":         {`{"auths":{"http://r.test":{"username":"u"}}}`, "r.test", Credential{}},
		"Docker Hub":         {`{"auths":{"https://index.docker.io/v1/":{"username":"u"}}}`, dockerHubHost, Credential{Username: "u"}},
		"not for Docker Hub": {`{"auths":{"https://index.docker.io/v1/":{"username":"u"}}}`, "r.test", Credential{}},
		"other fields":       {`{"HttpHeaders":{"a":"b"},"psFormat":"x","auths":{"r.test":{"username":"u","email":"x"}}}`, "r.test", Credential{Username: "u"}},
		"nothing":            {`{}`, "r.test", Credential{}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := newTestClient(t, func(o *Options) { o.DockerConfig = dockerConfigFile(t, test.config) })
			got, err := c.creds.lookup(t.Context(), test.host)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("credential (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDockerConfigThatCannotBeUsed(t *testing.T) {
	const secret = "s3cr3t"
	tests := map[string]string{
		"no JSON":       `{"auths":{"r.test":{"password":"` + secret + `"}`,
		"another form":  `{"auths":{"r.test":"` + secret + `"}}`,
		"a list":        `["` + secret + `"]`,
		"far too large": strings.Repeat(" ", maxFileBytes) + `{"x":"` + secret + `"}`,
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := New(Options{DockerConfig: dockerConfigFile(t, text)})
			if !errors.Is(err, reason.InstallFailed) || strings.Contains(err.Error(), secret) {
				t.Errorf("got %v, want InstallFailed without the file's content", err)
			}
		})
	}
	if _, err := New(Options{DockerConfig: filepath.Join(t.TempDir(), "none")}); !errors.Is(err, reason.InstallFailed) {
		t.Errorf("a missing file: %v, want InstallFailed", err)
	}
	c := newTestClient(t, func(o *Options) {
		o.DockerConfig = dockerConfigFile(t, `{"auths":{"r.test":{"auth":"`+base64.StdEncoding.EncodeToString([]byte(secret))+`"}}}`)
	})
	if _, err := c.creds.lookup(t.Context(), "r.test"); err == nil || strings.Contains(err.Error(), secret) {
		t.Errorf("an entry without password: %v, want an error without its content", err)
	}
}

func TestCredentialHelpersAreLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	c := newTestClient(t, func(o *Options) {
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		o.DockerConfig = dockerConfigFile(t, `{"credsStore":"desktop","credHelpers":{"r.test":"x"},"auths":{"r.test":{"username":"u"}}}`)
	})
	for range 3 {
		if cred, err := c.creds.lookup(t.Context(), "r.test"); err != nil || cred.Username != "u" {
			t.Errorf("lookup = %+v, %v, want the entry", cred, err)
		}
	}
	if log.Len() > 0 {
		t.Errorf("there is a warning though the entry is there:\n%s", log.String())
	}
	for range 3 { // only a helper could know this one
		if cred, err := c.creds.lookup(t.Context(), "other.test"); err != nil || cred != (Credential{}) {
			t.Errorf("lookup = %+v, %v, want none", cred, err)
		}
	}
	if n := strings.Count(log.String(), "\n"); n != 1 {
		t.Errorf("%d log lines, want 1:\n%s", n, log.String())
	}
}

func TestRotatedDockerConfigIsReadAgain(t *testing.T) {
	path := dockerConfigFile(t, `{"auths":{"r.test":{"username":"old"}}}`)
	c := newTestClient(t, func(o *Options) { o.DockerConfig = path })
	if err := os.WriteFile(path, []byte(`{"auths":{"r.test":{"username":"new"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if cred, err := c.creds.lookup(t.Context(), "r.test"); err != nil || cred.Username != "new" {
		t.Errorf("lookup = %+v, %v, want the new entry", cred, err)
	}
}

func TestCAFileThatCannotBeUsed(t *testing.T) {
	for name, path := range map[string]string{
		"missing":        filepath.Join(t.TempDir(), "none"),
		"no certificate": dockerConfigFile(t, "not a certificate"),
	} {
		if _, err := New(Options{CAFile: path}); !errors.Is(err, reason.InstallFailed) {
			t.Errorf("%s: %v, want InstallFailed", name, err)
		}
	}
}
