package bsdnet

import (
	"net/http"
	"time"
)

// HTTPTransport returns a new http.Transport that dials on the stack, and gives up a dial after 30
// s. It uses no proxy; its other settings are those of http.DefaultTransport. Its idle connections
// end when its CloseIdleConnections or Close of the stack is called.
func (s *Stack) HTTPTransport() *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&Dialer{Stack: s, Timeout: 30 * time.Second}).DialContext
	t.Proxy = nil
	return t
}

// HTTPClient returns an http.Client that dials on the stack, with a transport that
// [Stack.HTTPTransport] has made. Each call returns the same client, so that all its users share
// idle connections. To change a setting, copy the client.
func (s *Stack) HTTPClient() *http.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil {
		c := &http.Client{Transport: s.HTTPTransport()}
		s.client, s.closeIdle = c, c.CloseIdleConnections
	}
	return s.client.(*http.Client)
}

// HTTPClient is [Stack.HTTPClient] on the default stack.
func HTTPClient() *http.Client {
	s, err := defaultStack()
	if err != nil {
		panic(err) // the system has no randomness
	}
	return s.HTTPClient()
}
