"""AWS: ministack's control plane, with CodeCommit, service-specific credentials and CloudFormation's own strictness."""
