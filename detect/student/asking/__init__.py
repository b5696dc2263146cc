"""Asking a suspect endpoint: the plan fixed beforehand, the client, and the ledger of everything asked and answered."""
