package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"time"

	"github.com/quic-go/quic-go"
)

// quicRow returns a row in which quic-go sends over one stream.
func quicRow() row {
	return row{
		name: "quic1", title: "QUIC (quic-go), 1 stream", kind: kindDgram, unit: "Gbit/s", perGB: true, run: quicBulk,
	}
}

func quicBulk(m *meter) error {
	client, server, err := m.packets()
	if err != nil {
		return err
	}
	cert, err := quicCertificate()
	if err != nil {
		return err
	}
	const protocol = "bench"
	ln, err := quic.Listen(server, &tls.Config{
		Certificates: []tls.Certificate{cert}, NextProtos: []string{protocol}}, nil)
	if err != nil {
		return err
	}
	m.keep(ln)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := quic.Dial(ctx, client, server.LocalAddr(), &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{protocol}}, nil)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	peer, err := ln.Accept(ctx)
	if err != nil {
		return fmt.Errorf("accept: %w", err)
	}
	out, err := conn.OpenUniStreamSync(ctx)
	if err != nil {
		return err
	}
	m.spawn(func() error {
		defer conn.CloseWithError(0, "")
		buf := make([]byte, chunk)
		for m.phase.Load() != over {
			if _, err := out.Write(buf); err != nil {
				return fmt.Errorf("write: %w", err)
			}
		}
		return nil
	})
	in, err := peer.AcceptUniStream(ctx)
	if err != nil {
		return err
	}
	got := make([]counter, 1)
	m.spawn(func() error {
		buf := make([]byte, chunk)
		for m.phase.Load() != over {
			n, err := in.Read(buf)
			got[0].n.Add(uint64(n))
			if err != nil {
				return fmt.Errorf("read: %w", err)
			}
		}
		return nil
	})
	w, err := m.window(got)
	if err != nil {
		return err
	}
	m.sample.Value = w.count * 8 / 1e9 / w.seconds
	m.perGB(w, w.count, w.count/chunk)
	return nil
}

// quicCertificate makes a certificate that nobody checks.
func quicCertificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
