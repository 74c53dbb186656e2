// Shows /openapi.json. It sends the session cookie; a key can be set under Authorize.
SwaggerUIBundle({ url: "/openapi.json", dom_id: "#docs", deepLinking: true, defaultModelsExpandDepth: 0, validatorUrl: null });
