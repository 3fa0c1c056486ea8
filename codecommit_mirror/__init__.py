"""The companion of the CDK app: what CloudFormation cannot do for a mirror."""
