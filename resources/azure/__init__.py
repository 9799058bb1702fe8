"""What stands behind the resources in the profile ``azure``; imports Microsoft's clients late."""
