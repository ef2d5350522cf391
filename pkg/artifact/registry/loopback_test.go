package registry

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/confine-dev/confine/pkg/artifact/reference"
	"github.com/confine-dev/confine/pkg/reason"
)

// loopbackNet has one loopback registry, which demands a password.
type loopbackNet struct {
	*fakeNet
	repo          reference.Repository
	desc          ocispec.Descriptor
	secure, plain *recorder // what it gets over TLS, and without
}

const loopbackHost = "localhost:5000"

func newLoopbackNet(t *testing.T) *loopbackNet {
	t.Helper()
	manifest, desc, _ := testArtifact("{}")
	l := &loopbackNet{fakeNet: newFakeNet(t, "localhost"), repo: reference.Repository{Host: loopbackHost, Path: "a"}, desc: desc}
	answer := demandBasic(body(ocispec.MediaTypeImageManifest, manifest))
	l.secure, l.plain = &recorder{next: answer}, &recorder{next: answer}
	return l
}

// speakTLS makes the registry speak TLS from now on.
func (l *loopbackNet) speakTLS() { l.host(loopbackHost, l.secure, "127.0.0.1") }

// speakPlain makes it speak plain HTTP from now on.
func (l *loopbackNet) speakPlain() {
	server := httptest.NewServer(l.plain)
	l.t.Cleanup(server.Close)
	l.hosts[loopbackHost] = fakeHost{ips: []string{"127.0.0.1"}, server: server.Listener.Addr().String()}
}

func (l *loopbackNet) get(t *testing.T, c *Client) error {
	t.Helper()
	c.CloseIdleConnections() // another server may be there now
	_, err := c.Manifest(t.Context(), l.repo, l.desc.Digest)
	return err
}

func TestLoopbackRegistryWithTLS(t *testing.T) {
	l := newLoopbackNet(t)
	l.speakTLS()
	c := newTestClient(t, l.options, withPassword("bob", "pw"))
	if err := l.get(t, c); err != nil {
		t.Fatal(err)
	}
	if len(l.secure.secrets) != 1 || l.secure.asked != 2 {
		t.Errorf("%d requests with %q over TLS, want 2, one of them with the password", l.secure.asked, l.secure.secrets)
	}
}

func TestLoopbackRegistryWithoutTLS(t *testing.T) {
	for name, change := range map[string]func(*Options, *loopbackNet){
		"with a CA file":    func(o *Options, l *loopbackNet) { l.options(o) },
		"without a CA file": func(o *Options, l *loopbackNet) { o.dial = l.dial },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLoopbackNet(t)
			l.speakPlain()
			clock := newTestClock()
			c := newTestClient(t, func(o *Options) { change(o, l) }, withPassword("bob", "pw"), withClock(clock))
			for range 2 {
				if err := l.get(t, c); err != nil {
					t.Fatal(err)
				}
			}
			dialed := len(l.dialed)
			if want := map[string]int{"with a CA file": 3, "without a CA file": 2}[name]; dialed != want {
				t.Errorf("%d connections for two requests, want %d: TLS is tried once", dialed, want)
			}
			if clock.total() != 0 {
				t.Errorf("waited %s, want no pause before plain HTTP is tried", clock.total())
			}
			clock.advance(plainFor)
			l.speakTLS()
			err := l.get(t, c)
			if hasCA := name == "with a CA file"; (err == nil) != hasCA {
				t.Errorf("once it speaks TLS, after an hour: %v", err)
			}
		})
	}
}

// Whoever takes over the port of a registry that spoke TLS gets nothing.
func TestLoopbackRegistryNeverLosesTLS(t *testing.T) {
	l := newLoopbackNet(t)
	l.speakTLS()
	clock := newTestClock()
	c := newTestClient(t, l.options, withPassword("bob", "pw"), withClock(clock))
	if err := l.get(t, c); err != nil {
		t.Fatal(err)
	}
	l.speakPlain()
	for range 2 {
		err := l.get(t, c)
		if !errors.Is(err, reason.RegistryUnavailable) || !strings.Contains(err.Error(), "plain HTTP") {
			t.Errorf("got %v, want RegistryUnavailable that names plain HTTP", err)
		}
		clock.advance(plainFor)
	}
	if slices.Contains(l.plain.secrets, "Authorization") || l.plain.asked != 0 {
		t.Errorf("the other server got %d requests with %q", l.plain.asked, l.plain.secrets)
	}
}

// Only an answer in plain HTTP leads to http.
func TestLoopbackRegistryThatFailsIsNotAskedPlainly(t *testing.T) {
	t.Run("another authority", func(t *testing.T) {
		l, other := newLoopbackNet(t), newFakeNet(t, "localhost")
		l.speakTLS()
		var log requestLog
		c := newTestClient(t, l.options, withLog(&log), func(o *Options) { o.CAFile = other.caFile })
		if err := l.get(t, c); !errors.Is(err, reason.RegistryUnavailable) || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("got %v, want the certificate refused", err)
		}
		if got := log.take(); len(got) != 1 {
			t.Errorf("requests %q, want one", got)
		}
	})
	t.Run("a redirect to plain HTTP under another name", func(t *testing.T) {
		l := newLoopbackNet(t)
		l.speakPlain()
		l.hosts["localhost:6000"] = l.hosts[loopbackHost]
		l.secure.next = redirect(307, "https://localhost:6000/x")
		l.speakTLS()
		c := newTestClient(t, l.options)
		for range 2 {
			if err := l.get(t, c); !errors.Is(err, reason.RegistryUnavailable) {
				t.Errorf("got %v, want RegistryUnavailable", err)
			}
		}
		if l.secure.asked != 2 || l.plain.asked != 0 {
			t.Errorf("%d requests over TLS and %d without, want 2 and 0", l.secure.asked, l.plain.asked)
		}
	})
	t.Run("a registry elsewhere", func(t *testing.T) {
		n := newFakeNet(t, "registry.test")
		victim := &recorder{next: status(http.StatusOK)}
		server := httptest.NewServer(victim)
		t.Cleanup(server.Close)
		n.hosts["registry.test:443"] = fakeHost{ips: []string{publicIP}, server: server.Listener.Addr().String()}
		n.hosts["registry.test:80"] = n.hosts["registry.test:443"]
		_, desc, _ := testArtifact("{}")
		_, err := newTestClient(t, n.options).Manifest(t.Context(), reference.Repository{Host: "registry.test", Path: "a"}, desc.Digest)
		if !errors.Is(err, reason.RegistryUnavailable) || victim.asked != 0 {
			t.Errorf("got %v and %d requests, want RegistryUnavailable and none", err, victim.asked)
		}
	})
}

func TestReferrersOfLoopbackRegistryWithoutTLS(t *testing.T) {
	f := newFakeRegistry()
	f.list(f.bundle(subjectDigest, "good", signPredicate))
	n := newFakeNet(t, "localhost")
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	n.hosts[loopbackHost] = fakeHost{ips: []string{"127.0.0.1"}, server: server.Listener.Addr().String()}
	c := newTestClient(t, n.options)
	found, skipped := walkAll(t, c.Signatures(t.Context(), reference.Repository{Host: loopbackHost, Path: "team/web"}, subjectDigest, noneSeen))
	if got := texts(found); !slices.Equal(got, []string{"good"}) || len(skipped) != 0 {
		t.Errorf("found %q, skipped %v, want the good one", got, skipped)
	}
}
