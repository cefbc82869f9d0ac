"""Names of users in DNS: which there should be (`names`), who has them (`server`), and that they follow (`keeper`)."""
