"""The page for operators in a browser: what `murder ctl` shows and does, by the same functions of `operate`.

forms      what comes with a request: queries, forms, cookies
sessions   who is logged in, and by what right they act
rendering  templates to HTML, escaped
desk       what a page is given: the request, who asks, how the murder is reached
site       requests to pages: logins, what every answer carries, errors
pages      one module for each part of the menu
role       the node's part of it

`files` has the templates, a style and a script of our own: no page loads anything from elsewhere.
"""
