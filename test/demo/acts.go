package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/confine-dev/confine/pkg/node/status"
)

func (s *stage) pushAndSign(ctx context.Context) error {
	title("A security engineer makes a key, and pushes and signs profiles")
	if _, err := s.confine(ctx, "keygen", "--output-key-prefix", "cosign"); err != nil {
		return err
	}
	for _, p := range []struct{ name, tag, files string }{
		{"nginx", "1.0.0", "nginx.json"},
		{"nginx", "1.1.0", "nginx-unprivileged.json"},
		{"worker", "1.0.0", "worker.json"},
		{"bundle", "1.0.0", "nginx.json nginx.aa nginx.cil"},
	} {
		args := []string{"push", s.repository(p.name) + ":" + p.tag}
		for file := range strings.FieldsSeq(p.files) {
			args = append(args, filepath.Join(s.examples, "profiles", file))
		}
		out, err := s.confine(ctx, append(args, "--key", "cosign.key")...)
		if err != nil {
			return err
		}
		s.refs[p.name+":"+p.tag] = lastLine(out)
	}
	return nil
}

func (s *stage) install(ctx context.Context) error {
	title("An administrator says who is trusted; a node installs what is signed")
	public, err := os.ReadFile(s.path("cosign.pub"))
	if err != nil {
		return err
	}
	policy := fmt.Sprintf(policyTemplate, s.registry.host, indent(string(public), 8))
	if err := os.WriteFile(s.path("trust", "web.yaml"), []byte(policy), 0o600); err != nil {
		return err
	}
	for name, ref := range map[string]string{
		"nginx": s.refs["nginx:1.0.0"], "worker": s.refs["worker:1.0.0"], "bundle": s.refs["bundle:1.0.0"],
	} {
		if err := s.want(name, ref); err != nil {
			return err
		}
	}
	if err := s.startAgent(); err != nil {
		return err
	}
	for _, name := range []string{"nginx", "worker", "bundle"} {
		if err := s.awaitInstalled(ctx, name); err != nil {
			return err
		}
	}
	_, err = s.confine(ctx, "status", "--root", s.path("root"))
	return err
}

func (s *stage) enforce(ctx context.Context) error {
	title("The kernel enforces what was installed")
	if err := s.mustAllow(ctx, s.installed("worker", "worker.json"), "cat", filepath.Join(s.examples, "profiles", "nginx.cil")); err != nil {
		return err
	}
	if err := s.mustDeny(ctx, s.installed("worker", "worker.json"), "mkdir", "from-worker"); err != nil {
		return err
	}
	return s.mustDeny(ctx, s.installed("nginx", "nginx.json"), "unshare", "--mount", "true")
}

func (s *stage) roll(ctx context.Context) error {
	title("Rolling to a second digest, which no longer allows mkdir, and back")
	if err := s.mustAllow(ctx, s.installed("nginx", "nginx.json"), "mkdir", "before"); err != nil {
		return err
	}
	if err := s.want("nginx", s.refs["nginx:1.1.0"]); err != nil {
		return err
	}
	if err := s.awaitInstalled(ctx, "nginx"); err != nil {
		return err
	}
	if err := s.mustDeny(ctx, s.installed("nginx", "nginx-unprivileged.json"), "mkdir", "after"); err != nil {
		return err
	}
	if err := s.want("nginx", s.refs["nginx:1.0.0"]); err != nil {
		return err
	}
	if err := s.awaitInstalled(ctx, "nginx"); err != nil {
		return err
	}
	return s.mustAllow(ctx, s.installed("nginx", "nginx.json"), "mkdir", "again")
}

func (s *stage) refuse(ctx context.Context) error {
	title("What must not be installed is refused, each with its reason")
	attacks, err := s.prepareAttacks(ctx)
	if err != nil {
		return err
	}
	for _, attack := range attacks {
		if err := s.want(attack.name, attack.ref); err != nil {
			return err
		}
	}
	for _, attack := range attacks {
		if err := s.awaitRefused(ctx, attack); err != nil {
			return err
		}
		if _, err := os.Lstat(filepath.Dir(s.installed(attack.name, "x"))); err == nil {
			return fmt.Errorf("%s: something of it is below seccomp/confine", attack.name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	_, err = s.confine(ctx, "status", "--root", s.path("root"))
	return err
}

func (s *stage) withoutRegistry(ctx context.Context) error {
	title("The registry is gone and the agent restarts: what was verified stays enforced")
	if err := s.stopAgent(); err != nil {
		return err
	}
	s.registry.stop()
	if err := os.RemoveAll(s.path("root", "seccomp")); err != nil {
		return err
	}
	say("registry stopped, agent stopped, and the installed files deleted by hand")
	if err := s.startAgent(); err != nil {
		return err
	}
	if err := s.awaitInstalled(ctx, "nginx"); err != nil {
		return err
	}
	if err := s.eventually(ctx, "the file is back", func() error {
		_, err := os.Stat(s.installed("nginx", "nginx.json"))
		return err
	}); err != nil {
		return err
	}
	return s.mustDeny(ctx, s.installed("nginx", "nginx.json"), "unshare", "--mount", "true")
}

// want writes or changes a SecurityProfile, as an editor or a deployment tool would.
func (s *stage) want(name, ref string) error {
	manifest := fmt.Sprintf(profileTemplate, name, ref)
	temp := s.path("manifests", "."+name)
	if err := os.WriteFile(temp, []byte(manifest), 0o600); err != nil {
		return err
	}
	s.refs["wanted "+name] = ref
	return os.Rename(temp, s.path("manifests", name+".yaml"))
}

// awaitInstalled waits until the status says that the wanted digest is installed.
func (s *stage) awaitInstalled(ctx context.Context, name string) error {
	wanted := s.refs["wanted "+name]
	return s.eventually(ctx, name+" is installed", func() error {
		p, err := s.statusOf(name)
		if err != nil {
			return err
		}
		if !strings.HasSuffix(wanted, p.InstalledDigest.String()) || p.InstalledDigest == "" {
			return fmt.Errorf("installed is %q, wanted %q", p.InstalledDigest, wanted)
		}
		say("%s: installed %s", name, short(p.InstalledDigest))
		return nil
	})
}

func (s *stage) awaitRefused(ctx context.Context, a attack) error {
	return s.eventually(ctx, a.what+" is refused", func() error {
		p, err := s.statusOf(a.name)
		if err != nil {
			return err
		}
		ready := p.Condition(status.Ready)
		if ready.Reason != a.reason {
			return fmt.Errorf("the reason is %q (%s), not %q", string(ready.Reason), ready.Message, string(a.reason))
		}
		say("%-38s %s", a.what+":", ready.Reason)
		return nil
	})
}

func (s *stage) statusOf(name string) (status.Profile, error) {
	report, err := status.Read(s.path("root"))
	if err != nil {
		return status.Profile{}, err
	}
	for _, p := range report.Profiles {
		if p.Owner.Namespace == "web" && p.Owner.Name == name {
			return p, nil
		}
	}
	return status.Profile{}, fmt.Errorf("no status of web/%s yet", name)
}

func short(d digest.Digest) string { return d.String()[:len("sha256:")+12] }

func indent(text string, by int) string {
	pad := strings.Repeat(" ", by)
	return pad + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+pad)
}

const profileTemplate = `apiVersion: confine.dev/v1alpha1
kind: SecurityProfile
metadata:
  namespace: web
  name: %s
spec:
  artifact: %s
`

const policyTemplate = `apiVersion: confine.dev/v1alpha1
kind: TrustPolicy
metadata:
  name: web
spec:
  repositories: ["%s/profiles/*"]
  namespaces: [web]
  threshold: 1
  allowedKinds: [seccomp, apparmor, selinux]
  signers:
  - name: security-team
    key:
      pem: |
%s
`
