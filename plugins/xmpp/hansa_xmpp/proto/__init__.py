"""Rules of XMPP as Hansa speaks it: pure functions and small machines, no I/O."""
