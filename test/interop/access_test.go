package interop_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/confine-dev/confine/pkg/reason"
)

// A registry behind basic authentication, with credentials from a docker
// config file as docker and oras write it.
func TestBasicAuthentication(t *testing.T) {
	const user, right, wrong = "robot", "right-Secret-1", "wrong-Secret-2"
	d := newDesk(t)
	hash, err := bcrypt.GenerateFromPassword([]byte(right), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	htpasswd := d.write("htpasswd", fmt.Appendf(nil, "%s:%s\n", user, hash))
	s := startDistribution(t, fmt.Sprintf("auth: {htpasswd: {realm: profiles, path: %q}}\n", htpasswd))
	d.keys(confineKey, "ci")
	file := d.example("nginx.json")[0]
	policy := d.policy(trusting{repositories: []string{s.host + "/profiles/*"}, keys: []string{"ci.pub"}})

	// As `oras login` writes it; by hand, as people do; and in the folder that
	// DOCKER_CONFIG names.
	d.run("oras", "login", "--registry-config", d.path("oras.json"), "--username", user, "--password", right, s.host)
	byHand := d.dockerConfig("hand.json", s.host, user, right)
	ref := d.confinePush(s.repo("web"), "1", "ci", "--docker-config", "oras.json", file)
	inFolder := d.with("DOCKER_CONFIG=" + d.dir)
	d.dockerConfig("config.json", s.host, user, right)
	inFolder.accepts(ref, policy, file)
	if out := d.run("confine", "verify", ref, "--policy", policy, "-n", namespace, "--docker-config", byHand); strings.Contains(out, right) {
		t.Errorf("the password is in the output:\n%s", out)
	}
	d.succeeded(inFolder.tryCosignVerify(cosign3, "ci", ref), cosign3, nil)

	refused := map[string]string{
		"wrong password": d.dockerConfig("wrong.json", s.host, user, wrong),
		"another user":   d.dockerConfig("user.json", s.host, "nobody", wrong),
		"other registry": d.dockerConfig("other.json", "registry.example.com", user, right),
	}
	for name, config := range refused {
		t.Run(name, func(t *testing.T) {
			d := d.in(t)
			said := d.refuses(reason.Unauthorized, ref, policy, "--docker-config", config)
			said += d.isRefusal(reason.Unauthorized, d.try("confine", "push", "--docker-config", config, "--key", "ci.key", s.repo("web")+":2", file))
			said += d.isRefusal(reason.Unauthorized, d.try("confine", "resolve", "--docker-config", config, s.repo("web")+":1"))
			for _, secret := range []string{right, wrong, basic(user, right), basic(user, wrong), basic("nobody", wrong)} {
				if strings.Contains(said, secret) {
					t.Errorf("a secret is in the output:\n%s", said)
				}
			}
		})
	}
	t.Run("no credentials", func(t *testing.T) { d.in(t).refuses(reason.Unauthorized, ref, policy) })
}

func basic(user, secret string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + secret))
}

// dockerConfig writes a docker config file with one credential.
func (d *desk) dockerConfig(name, host, user, secret string) string {
	d.t.Helper()
	data, err := json.Marshal(map[string]any{"auths": map[string]any{host: map[string]any{"auth": basic(user, secret)}}})
	if err != nil {
		d.t.Fatal(err)
	}
	return d.write(name, data)
}

// A registry with a certificate of a private authority, behind the proxy that
// the environment names: only so does a public name lead to loopback.
func TestTLSWithPrivateAuthority(t *testing.T) {
	const name = "registry.example.com"
	d := newDesk(t)
	ca, cert, key := d.authority("ca", name)
	s := startDistribution(t, fmt.Sprintf("  tls: {certificate: %q, key: %q}\n", cert, key))
	otherCA, _, _ := d.authority("other", name)
	gate := newGate(t, map[string]string{name + ":443": s.addr})
	d = d.with("HTTPS_PROXY=" + gate.URL)
	d.keys(confineKey, "ci")
	file := d.example("nginx.json")[0]
	policy := d.policy(trusting{repositories: []string{name + "/profiles/*"}, keys: []string{"ci.pub"}})

	ref := d.confinePush(name+"/profiles/web", "1", "ci", "--ca-file", ca, file)
	d.run("confine", "verify", ref, "--policy", policy, "-n", namespace, "--ca-file", ca)
	into := d.freshFolder()
	d.run("confine", "pull", ref, "--policy", policy, "-n", namespace, "--ca-file", ca, "-o", into)
	d.holds(into, file)
	d.run(cosign3, "verify", "--key", "ci.pub", "--insecure-ignore-tlog", "--registry-cacert", ca, ref)

	for name, flags := range map[string][]string{"without the authority": nil, "with another authority": {"--ca-file", otherCA}} {
		t.Run(name, func(t *testing.T) {
			d := d.in(t)
			said := d.refuses(reason.RegistryUnavailable, ref, policy, flags...)
			for _, word := range []string{"certificate", "unknown authority", "--ca-file"} {
				if !strings.Contains(said, word) {
					t.Errorf("%q is missing in:\n%s", word, said)
				}
			}
		})
	}
	t.Run("for another name", func(t *testing.T) {
		const other = "other.example.com"
		gate := newGate(t, map[string]string{other + ":443": s.addr})
		d := d.in(t).with("HTTPS_PROXY=" + gate.URL)
		policy := d.policy(trusting{repositories: []string{other + "/profiles/*"}, keys: []string{"ci.pub"}})
		said := d.refuses(reason.RegistryUnavailable, other+"/profiles/web@"+digestOf(ref), policy, "--ca-file", ca)
		if !strings.Contains(said, "certificate is valid for "+name) {
			t.Errorf("it is not said for which name the certificate is:\n%s", said)
		}
	})
}

// authority makes a certificate authority and one certificate for name, and
// returns the files: authority, certificate and its key.
func (d *desk) authority(prefix, name string) (ca, cert, key string) {
	d.t.Helper()
	root := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: prefix}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name, "localhost"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: root.NotBefore, NotAfter: root.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	rootKey, leafKey := d.ecKey(), d.ecKey()
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, rootKey.Public(), rootKey)
	if err != nil {
		d.t.Fatal(err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, leafKey.Public(), rootKey)
	if err != nil {
		d.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		d.t.Fatal(err)
	}
	inPEM := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	return d.write(prefix+"-ca.crt", inPEM("CERTIFICATE", rootDER)),
		d.write(prefix+".crt", inPEM("CERTIFICATE", leafDER)),
		d.write(prefix+".tls.key", inPEM("PRIVATE KEY", keyDER))
}

func (d *desk) ecKey() *ecdsa.PrivateKey {
	d.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		d.t.Fatal(err)
	}
	return key
}
