"""Azure DevOps' REST API 7.1: routes, scopes, errors, paging and throttling, as far as a mirror needs them."""
