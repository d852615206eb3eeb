"""From a wallet or a key to the credentials of one request, one scheme per file."""
