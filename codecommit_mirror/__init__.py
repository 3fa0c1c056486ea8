"""The CLI beside the CDK app: what CloudFormation cannot do for a mirror."""
