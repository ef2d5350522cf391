package lab

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/confine-dev/confine/test/kube/cluster"
	"github.com/confine-dev/confine/test/tools"
)

const (
	registryPort = "5000"
	startTimeout = 30 * time.Second
	pollInterval = 50 * time.Millisecond
	validity     = 30 * 24 * time.Hour
)

// Registry is the registry of the distribution project, on the control plane's
// address, with a certificate of an authority of its own. Who has no password
// gets nothing.
type Registry struct {
	// Host is what references begin with.
	Host string
	// CAFile holds the certificate authority.
	CAFile string
	// DockerConfig is a docker config file with the one password, in a folder of
	// its own.
	DockerConfig string
	// Password is that one.
	Password string

	lab     *Lab
	config  string
	program string
	process *exec.Cmd
	ended   chan error
}

const registryConfig = `version: 0.1
log: {level: info, formatter: text, accesslog: {disabled: false}}
storage:
  filesystem: {rootdirectory: %q}
  maintenance: {uploadpurging: {enabled: false}}
http:
  net: tcp
  addr: %q
  secret: none
  tls: {certificate: %q, key: %q}
auth:
  htpasswd: {realm: lab, path: %q}
`

// newRegistry writes its files.
func (l *Lab) newRegistry(ctx context.Context) (*Registry, error) {
	program, err := tools.Path(ctx, "registry")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(l.file("registry"), 0o700); err != nil {
		return nil, err
	}
	r := &Registry{
		Host: net.JoinHostPort(cluster.ControlAddress, registryPort), CAFile: l.file("registry", "ca.crt"),
		DockerConfig: l.file("registry", "docker", "config.json"),
		lab:          l, config: l.file("registry", "config.yml"), program: program,
	}
	certificate, key := l.file("registry", "tls.crt"), l.file("registry", "tls.key")
	if err := writeCertificates(r.CAFile, certificate, key); err != nil {
		return nil, err
	}
	passwords := l.file("registry", "htpasswd")
	if err := r.writePassword(passwords); err != nil {
		return nil, err
	}
	text := fmt.Appendf(nil, registryConfig, l.file("registry", "storage"), r.Host, certificate, key, passwords)
	return r, os.WriteFile(r.config, text, 0o600)
}

// writePassword makes a user, for the registry and for those who ask it.
func (r *Registry) writePassword(file string) error {
	const user = "nodes"
	r.Password = rand.Text()
	hash, err := bcrypt.GenerateFromPassword([]byte(r.Password), bcrypt.MinCost)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, fmt.Appendf(nil, "%s:%s\n", user, hash), 0o600); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(r.DockerConfig), 0o700); err != nil {
		return err
	}
	auth := base64.StdEncoding.EncodeToString([]byte(user + ":" + r.Password))
	return os.WriteFile(r.DockerConfig, fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, r.Host, auth), 0o600)
}

// Start starts it, with what it served before, and waits until it answers.
func (r *Registry) Start(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(r.lab.Cluster.Dir(), "log", "registry.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	// It runs on when whoever made the lab ends.
	cmd := r.lab.Cluster.Command(context.WithoutCancel(ctx), r.program, "serve", r.config)
	cmd.Env = []string{"HOME=" + r.lab.file("registry"), "OTEL_TRACES_EXPORTER=none"}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := errors.Join(cmd.Start(), log.Close()); err != nil {
		return err
	}
	r.process, r.ended = cmd, make(chan error, 1)
	go func() { r.ended <- cmd.Wait() }()
	return r.waitForAnswer(ctx)
}

func (r *Registry) waitForAnswer(ctx context.Context) error {
	roots, err := os.ReadFile(r.CAFile)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return fmt.Errorf("%s holds no certificate", r.CAFile)
	}
	transport := r.lab.Cluster.Transport()
	transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+r.Host+"/v2/", http.NoBody)
		if err != nil {
			return err
		}
		response, err := (&http.Client{Transport: transport}).Do(request)
		if err == nil {
			err = response.Body.Close()
			if response.StatusCode != http.StatusUnauthorized {
				err = errors.Join(err, fmt.Errorf("the registry answers %s to who has no password", response.Status))
			}
			return err
		}
		select {
		case end := <-r.ended:
			return fmt.Errorf("the registry ended: %w", end)
		case <-ctx.Done():
			return fmt.Errorf("the registry does not answer: %w", err)
		case <-tick.C:
		}
	}
}

// Stop kills it: who connects is refused.
func (r *Registry) Stop() error {
	if err := r.process.Process.Kill(); err != nil {
		return err
	}
	if err := <-r.ended; err == nil {
		return errors.New("the registry ended by itself before it was killed")
	}
	return nil
}

// Freeze makes it take connections and answer none, until Thaw.
func (r *Registry) Freeze() error { return r.process.Process.Signal(syscall.SIGSTOP) }

// Thaw ends a Freeze.
func (r *Registry) Thaw() error { return r.process.Process.Signal(syscall.SIGCONT) }

// writeCertificates makes an authority and a certificate of it for the registry.
func writeCertificates(caFile, certificateFile, keyFile string) error {
	now := time.Now()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "registry of the test cluster"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(validity),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	authorityDER, err := x509.CreateCertificate(rand.Reader, authority, authority, authorityKey.Public(), authorityKey)
	if err != nil {
		return err
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "registry"},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		IPAddresses: []net.IP{net.ParseIP(cluster.ControlAddress)},
		KeyUsage:    x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	serverKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serverDER, err := x509.CreateCertificate(rand.Reader, server, authority, serverKey.Public(), authorityKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		return err
	}
	return errors.Join(
		writePEM(caFile, "CERTIFICATE", authorityDER),
		writePEM(certificateFile, "CERTIFICATE", serverDER),
		writePEM(keyFile, "PRIVATE KEY", keyDER),
	)
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
