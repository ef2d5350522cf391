//go:build !lsm_selinux && !lsm_apparmor

package selinux_test

import (
	"os"
	"testing"

	"github.com/confine-dev/confine/pkg/profile"
	"github.com/confine-dev/confine/pkg/profile/selinux"
)

// TestTheExampleIsAdmittedAsItStands reads a file of another folder, which a test
// machine does not have.
func TestTheExampleIsAdmittedAsItStands(t *testing.T) {
	data, err := os.ReadFile("../../../examples/profiles/nginx.cil")
	if err != nil {
		t.Fatal(err)
	}
	p, err := selinux.Parse("nginx.cil", data)
	if err != nil {
		t.Fatal(err)
	}
	if err := selinux.NewKind().Constrain(p, profile.ForAnyone(), nil); err != nil {
		t.Error(err)
	}
	if found := p.Findings(); len(found) > 0 {
		t.Errorf("findings: %v", found)
	}
	block, processType := p.Names()
	if block != "confine_web_nginx" || processType != "confine_web_nginx.process" {
		t.Errorf("named %s, %s", block, processType)
	}
}
