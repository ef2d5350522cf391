package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// validity of every certificate: a test cluster does not get old.
const validity = 30 * 24 * time.Hour

// authority signs the certificates of one cluster.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test cluster"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validity),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{certificate, key, encode("CERTIFICATE", der)}, nil
}

// issue makes a key and a certificate for a client, and for a server if it has
// addresses, in PEM. Kubernetes takes the name of a user from the common name
// and the groups from the organizations.
func (a *authority) issue(user string, groups []string, addresses ...string) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: user, Organization: groups},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(validity),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, address := range addresses {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if ip := net.ParseIP(address); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, address)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key)
	if err != nil {
		return nil, nil, err
	}
	key, err = encodeKey(private)
	return encode("CERTIFICATE", der), key, err
}

// encodeKey writes the form of SEC 1: the API server finds the public half of a
// signing key in no other.
func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	return encode("EC PRIVATE KEY", der), err
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// Files of the cluster's keys, below the folder "pki".
const (
	caFile      = "ca.crt"
	serverName  = "apiserver"
	kubeletName = "apiserver-kubelet"
	signerFile  = "service-accounts.key"
)

// makeKeys writes the keys of the control plane, and a kubeconfig for each of
// its parts, for an administrator and for each node.
func (c *Cluster) makeKeys(nodes int) error {
	if err := os.MkdirAll(c.file("pki"), 0o700); err != nil {
		return err
	}
	ca, err := newAuthority()
	if err != nil {
		return err
	}
	if err := os.WriteFile(c.file("pki", caFile), ca.pem, 0o600); err != nil {
		return err
	}
	if err := c.makeServerKeys(ca); err != nil {
		return err
	}
	users := map[string]struct{ user, group string }{
		"admin":                   {"kubernetes-admin", "system:masters"},
		"kube-controller-manager": {"system:kube-controller-manager", ""},
		"kube-scheduler":          {"system:kube-scheduler", ""},
	}
	for n := 1; n <= nodes; n++ {
		users[NodeName(n)] = struct{ user, group string }{"system:node:" + NodeName(n), "system:nodes"}
	}
	for file, u := range users {
		var groups []string
		if u.group != "" {
			groups = []string{u.group}
		}
		certificate, key, err := ca.issue(u.user, groups)
		if err != nil {
			return err
		}
		if err := clientcmd.WriteToFile(kubeconfig(ca.pem, certificate, key), c.kubeconfig(file)); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) makeServerKeys(ca *authority) error {
	certificate, key, err := ca.issue("kube-apiserver", nil, ControlAddress, serviceAddress, "127.0.0.1", "localhost",
		"kubernetes", "kubernetes.default", "kubernetes.default.svc")
	if err != nil {
		return err
	}
	if err := c.writePair(serverName, certificate, key); err != nil {
		return err
	}
	// The API server is a client of kubelets, for logs and exec.
	certificate, key, err = ca.issue("kube-apiserver", []string{"system:masters"})
	if err != nil {
		return err
	}
	if err := c.writePair(kubeletName, certificate, key); err != nil {
		return err
	}
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	data, err := encodeKey(signer)
	if err != nil {
		return err
	}
	return os.WriteFile(c.file("pki", signerFile), data, 0o600)
}

func (c *Cluster) writePair(name string, certificate, key []byte) error {
	if err := os.WriteFile(c.file("pki", name+".crt"), certificate, 0o600); err != nil {
		return err
	}
	return os.WriteFile(c.file("pki", name+".key"), key, 0o600)
}

// kubeconfig returns the path of the configuration of a part or a node.
func (c *Cluster) kubeconfig(name string) string { return c.file("pki", name+".kubeconfig") }

func kubeconfig(ca, certificate, key []byte) clientcmdapi.Config {
	const name = "cluster"
	return clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{name: {Server: "https://" + ControlAddress, CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{name: {ClientCertificateData: certificate, ClientKeyData: key}},
		Contexts:       map[string]*clientcmdapi.Context{name: {Cluster: name, AuthInfo: name}},
		CurrentContext: name,
	}
}
