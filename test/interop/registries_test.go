package interop_test

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// site is a running registry of one test.
type site struct {
	host string // localhost:PORT, which all programs here reach by plain HTTP
	addr string // 127.0.0.1:PORT
	// requests counts what it was asked; only the in-process kind does.
	requests *atomic.Int64
	// process and storage belong to distribution alone.
	process *os.Process
	storage string
}

func (s *site) repo(name string) string { return s.host + "/profiles/" + name }

// kinds are the two kinds of registry: one without and one with the referrers
// API of OCI 1.1.
func kinds() map[string]func(*testing.T) *site {
	return map[string]func(*testing.T) *site{
		"distribution": func(t *testing.T) *site { t.Helper(); return startDistribution(t, "") },
		"referrersAPI": startReferrersAPI,
	}
}

// startReferrersAPI starts a registry in this process.
func startReferrersAPI(t *testing.T) *site {
	t.Helper()
	backend := registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0)))
	requests := &atomic.Int64{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		backend.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s := siteAt(t, server.Listener.Addr().String())
	s.requests = requests
	return s
}

func siteAt(t *testing.T, addr string) *site {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return &site{host: net.JoinHostPort("localhost", port), addr: addr}
}

const distributionConfig = `version: 0.1
log: {level: info, formatter: text, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
  maintenance: {uploadpurging: {enabled: false}}
http:
  net: tcp
  addr: 127.0.0.1:0
  secret: none
%s`

// startDistribution starts the registry of the distribution project, a process
// of its own; more is added to the http part of its configuration and after.
func startDistribution(t *testing.T, more string) *site {
	t.Helper()
	dir := t.TempDir()
	storage, config := filepath.Join(dir, "storage"), filepath.Join(dir, "config.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, distributionConfig, storage, more), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(lab(t, "registry"), "serve", config)
	cmd.Env = []string{"HOME=" + dir, "OTEL_TRACES_EXPORTER=none"}
	watch := &addressWatch{found: make(chan string, 1)}
	cmd.Stdout, cmd.Stderr = watch, watch
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended already
		<-ended
	})
	select {
	case addr := <-watch.found:
		s := siteAt(t, addr)
		s.process, s.storage = cmd.Process, storage
		return s
	case err := <-ended:
		ended <- err
		t.Fatalf("the registry ended: %v\n%s", err, watch.text())
	case <-time.After(commandTimeout):
		t.Fatalf("the registry does not come up:\n%s", watch.text())
	}
	return nil
}

// addressWatch keeps a log and finds the address that it says is listened on.
type addressWatch struct {
	found chan string

	mu   sync.Mutex
	log  bytes.Buffer
	sent bool
}

func (w *addressWatch) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.log.Write(p)
	if match := listeningRegexp.FindStringSubmatch(w.log.String()); match != nil && !w.sent {
		w.sent = true
		w.found <- match[1]
	}
	return len(p), nil
}

func (w *addressWatch) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.String()
}

var listeningRegexp = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)[",]`)

// delete deletes a manifest or a tag, as the OCI distribution specification
// 1.1 ("Deleting tags") has it; oras deletes by digest alone.
func (d *desk) delete(s *site, ref string) {
	d.t.Helper()
	at := strings.LastIndexAny(ref, "@")
	if at < 0 {
		at = strings.LastIndexByte(ref, ':')
	}
	repo, target := strings.TrimPrefix(ref[:at], s.host+"/"), ref[at+1:]
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodDelete, "http://"+s.addr+"/v2/"+repo+"/manifests/"+target, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusAccepted {
		d.t.Fatalf("DELETE %s: HTTP %d", target, resp.StatusCode)
	}
}
